"""Prepare on a computer without a cluster: people check their data before they commit it."""
