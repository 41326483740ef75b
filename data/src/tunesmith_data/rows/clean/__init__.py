"""Cleaning: near duplicates, overlap with held-out rows, personal data."""
