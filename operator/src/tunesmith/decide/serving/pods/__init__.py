"""Serving pods as observed, and the change from one set of them to the next."""
