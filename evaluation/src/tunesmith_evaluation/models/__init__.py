"""Models that answer in this process or its children, by torch and transformers."""
