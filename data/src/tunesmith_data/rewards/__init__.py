"""Rewards: scorers for batches of answers, one module for each kind."""
