"""Evaluate stage: answers of all sides to the same items, metrics, and paired comparison."""
