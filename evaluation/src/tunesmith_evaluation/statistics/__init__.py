"""Intervals, tests and corrections for paired scores."""
