"""Decisions about an AdapterDeployment: rollouts of aliases, versions and status."""
