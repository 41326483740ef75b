"""Decisions about an EvalRun: plan, sides, gates and status."""
