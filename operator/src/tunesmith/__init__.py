"""Tunesmith: fine-tuning on Kubernetes, from data to a served adapter."""
