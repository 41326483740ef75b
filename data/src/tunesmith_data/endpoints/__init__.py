"""Clients of HTTP endpoints: retries, chat requests, a journal of answers."""
