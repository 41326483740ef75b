"""Builders of Kubernetes objects: pure, one file per object, plain dicts out."""
