"""Committed checkpoints: folder, writer lease, announcement."""
