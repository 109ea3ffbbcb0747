"""Methods whose nodes communicate through exact averages (all-reduce). One file a method."""
