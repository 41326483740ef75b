"""Client of vLLM's control API: health, adapters, log-probabilities."""
