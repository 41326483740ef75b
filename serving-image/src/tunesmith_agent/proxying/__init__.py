"""Requests of clients: checked, routed, forwarded to the engine."""
