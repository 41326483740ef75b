"""Rules that several parts must apply alike: default settings, duration of training, GPU products, choice of probes."""
