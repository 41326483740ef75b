"""Artifacts of adapters on this pod's disk: checked, copied, hashed, kept within a number of bytes."""
