"""Rollout of one alias: its transitions, the evidence that decides them, and actions of people."""
