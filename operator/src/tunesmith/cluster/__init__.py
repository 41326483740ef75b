"""Reads and writes of the cluster: observe each kind, execute plans, and reconcile with both."""
