"""Rules about what a request may say: pure, no I/O."""
