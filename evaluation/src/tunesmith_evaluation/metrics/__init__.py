"""Metrics: scores of answers."""
