"""Ports of loopback for servers of tests."""

from tunesmith_cluster.controlplane import free_ports


def free_port() -> int:
    """A port that nobody listens on, and that the kernel gives to no outgoing connection meanwhile."""
    (port,) = free_ports(1)
    return port
