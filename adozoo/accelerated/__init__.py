"""Optimal methods for smooth, strongly convex problems, and the methods they are compared with."""
