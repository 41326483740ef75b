"""The generate stage: a teacher makes rows, within a budget that no restart resets."""
