"""What the rows that are kept say: checks of quality, and what follows for training."""
