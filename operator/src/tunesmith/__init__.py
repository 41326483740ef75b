"""Tunesmith: the fine-tuning loop as a Kubernetes operator."""
