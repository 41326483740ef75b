"""The prepare stage: look at the base model; read, check, clean, split, judge and digest the data."""

from .prepared_rows import load_prepared, rows_of
from .stage import learns_answers_only, prepare

__all__ = ["learns_answers_only", "load_prepared", "prepare", "rows_of"]
