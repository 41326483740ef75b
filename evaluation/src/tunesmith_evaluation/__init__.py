"""Evaluation of models: items, answers of all sides, metrics, paired comparison and reports."""
