"""Which version answers a request: pure, no I/O."""
