"""What Tunesmith's operator, trainer and serving agent say to each other.

Pydantic models and pure functions only. Each document carries a ``schemaVersion``; a reader accepts its own
version and the one before it, so that operator and pods may be of neighbouring releases.
"""
