"""Builds Tunesmith's images, test environments and test model, each cached by the content it comes from."""
