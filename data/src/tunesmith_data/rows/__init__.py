"""Rows: read, checked, rendered, split, and written in one canonical form."""
