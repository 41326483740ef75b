"""What to do next: pure functions of the resource, what was observed, and the time."""
