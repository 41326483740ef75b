"""The agent in front of the engine in serving pods."""
