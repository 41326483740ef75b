"""Committed checkpoints: folder on disk, copy in a bucket, writer lease, announcement."""
