"""Artifact that an alias is meant to serve, and the verdicts that admit it."""
