"""What runs in training pods: prepare, train, evaluate."""
