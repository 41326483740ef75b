"""Documents and protocols between Tunesmith's operator, trainer and serving agent.

Pydantic models and pure functions only. Each document carries a ``schemaVersion``; a reader accepts its own
version and the one before it, so that operator and pods may be of neighboring releases.
"""
