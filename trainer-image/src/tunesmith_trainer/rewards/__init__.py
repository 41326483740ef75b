"""Rewards that need torch: reward models."""
