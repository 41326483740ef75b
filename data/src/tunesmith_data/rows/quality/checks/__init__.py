"""Quality checks, one module per check."""
