"""The generate stage: rows made by a teacher, within a budget that survives restarts."""
