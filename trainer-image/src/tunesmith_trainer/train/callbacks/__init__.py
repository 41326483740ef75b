"""Trainer callbacks: checkpoints, early stopping, metrics, trackers."""
