"""Rules that operator and pods must apply alike: default settings, duration of training, GPU products."""
