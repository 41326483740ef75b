"""Decisions about a FineTuneJob: plan, stages, run configuration and status."""
