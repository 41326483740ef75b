"""PID 1 of a training pod: starts and supervises worker processes."""
