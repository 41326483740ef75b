"""The one error that a person sees."""


class ClusterError(Exception):
    """Something about a cluster went wrong; the message says what, where to look and what to do."""
