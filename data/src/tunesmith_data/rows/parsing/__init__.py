"""Strict parsing of text and JSON."""
