"""Decisions on the search of a FineTuneJob: which trials there are, what follows from them, and their status."""
