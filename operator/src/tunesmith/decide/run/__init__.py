"""Engine that runs the Jobs of a FineTuneJob or an EvalRun: attempts, retries, limits and records."""
