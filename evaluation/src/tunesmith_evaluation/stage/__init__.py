"""Evaluate stage: from suites to the answers of all sides and a committed report."""
