"""Error that the command line prints without a traceback."""


class ClusterError(Exception):
    """Failure of a cluster; the message says what failed, where to look and what to do."""
