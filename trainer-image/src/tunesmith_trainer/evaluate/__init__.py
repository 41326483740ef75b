"""The evaluate stage: all sides answer the same items in one process, and are compared pair by pair."""
