"""Synchronous methods over a graph: every node talks to its neighbours in every step. One file a method."""
