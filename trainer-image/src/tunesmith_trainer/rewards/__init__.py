"""Reward models: loading and scoring with torch."""
