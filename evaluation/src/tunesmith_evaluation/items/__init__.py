"""Evaluation items, few-shot examples, and prompts."""
