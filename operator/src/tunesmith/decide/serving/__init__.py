"""Decisions about an AdapterDeployment: versions and rollouts of its aliases, and its status."""
