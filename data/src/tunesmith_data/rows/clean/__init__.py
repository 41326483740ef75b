"""Takes out what must not be trained on: repetitions, leaks, personal data."""
