"""Decisions: pure functions that turn a resource, its observed state and the time into a plan."""
