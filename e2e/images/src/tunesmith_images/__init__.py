"""Builds of images, test environments and test model, cached by content."""
