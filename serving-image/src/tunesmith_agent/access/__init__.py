"""Clients with keys: who they are, what they may ask for, how much, and what they have used."""
