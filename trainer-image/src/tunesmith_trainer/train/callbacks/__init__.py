"""Callbacks of a training run: steps, early stopping, measurements, history, trackers."""
