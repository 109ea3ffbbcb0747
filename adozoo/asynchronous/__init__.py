"""Event-driven methods, and the event engine they share."""
