"""Comparison of all sides' scores: results of metrics, slices, and evidence on gates."""
