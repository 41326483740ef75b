"""Formats of rows: detection, checks, canonical form."""
