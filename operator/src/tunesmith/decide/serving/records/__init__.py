"""Persistent state of an AdapterDeployment: records of rollouts, history and versions."""
