"""Start of vLLM's server in a serving pod."""
