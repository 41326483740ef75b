"""Data preparation for fine-tuning: reading, checks, cleaning, labels, generation; needs no torch."""
