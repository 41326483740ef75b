"""Rows of a data set: reading, checks, cleaning, quality, reports."""
