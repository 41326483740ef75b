"""Policy of a verdict: the record of all that decides, and its digest."""
