"""Evaluate stage: suites in, answers of all sides, committed report out."""
