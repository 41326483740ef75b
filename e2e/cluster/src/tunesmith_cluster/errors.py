"""Error that the command line prints without a traceback."""


class ClusterError(Exception):
    """Something about a cluster went wrong; the message says what, where to look and what to do."""
