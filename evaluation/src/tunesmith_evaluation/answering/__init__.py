"""Answerers: sources of the answers of sides, behind one interface."""
