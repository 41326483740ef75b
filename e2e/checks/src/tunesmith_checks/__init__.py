"""The runner of `make test`: which stages run side by side, what they printed, and how much they covered."""
