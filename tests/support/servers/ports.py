"""Addresses on this machine for servers of tests: ports of loopback, and sockets in the file system."""

import tempfile
import uuid

from tunesmith_cluster.controlplane import free_ports


def free_port() -> int:
    """A port that nobody listens on, and that the kernel gives to no outgoing connection meanwhile."""
    (port,) = free_ports(1)
    return port


def free_socket() -> str:
    """Path of a socket that does not exist yet; whoever makes it removes it. The folders of tests have longer names."""
    return f"{tempfile.gettempdir()}/tunesmith-{uuid.uuid4().hex}.sock"
