"""Judge: a model behind an endpoint that scores or compares answers."""
