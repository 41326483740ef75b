"""Clients of an AdapterDeployment, and the tokens that they have used."""
