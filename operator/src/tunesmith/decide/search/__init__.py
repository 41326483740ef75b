"""Decisions on the search of a FineTuneJob: its trials, its next step, and its status."""
