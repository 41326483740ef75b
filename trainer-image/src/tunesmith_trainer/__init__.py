"""Entry point, launcher and stages of the training pods."""
