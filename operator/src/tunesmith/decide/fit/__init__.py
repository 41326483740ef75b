"""Memory, GPU, duration and servability estimates made before a GPU is requested."""
