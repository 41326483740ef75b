"""Answerers: what gives the answers of sides, behind one interface."""
