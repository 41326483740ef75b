"""Rows for fine-tuning: read, checked, cleaned, labelled, generated; needs no torch."""
