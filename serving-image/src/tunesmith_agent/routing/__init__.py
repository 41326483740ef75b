"""Choice of the version that answers a request: pure, no I/O."""
