"""Artifact of a training run: files, manifest, model card, probes."""
