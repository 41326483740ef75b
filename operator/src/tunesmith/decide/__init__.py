"""Decisions: pure functions from a resource, its observed state and the time to a plan."""
