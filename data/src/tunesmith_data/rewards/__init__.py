"""What makes an answer good: one small module per kind of reward, each a scorer of a batch of answers."""
