"""The prepare stage: look at the base model; read, check, clean, split, judge and digest the data."""

from .prepared import load_prepared, rows_of
from .run import learns_answers_only, prepare

__all__ = ["learns_answers_only", "load_prepared", "prepare", "rows_of"]
