"""The prepare stage: inspects the base model; reads, checks, cleans and splits the data."""

from .prepared_rows import load_prepared, rows_of
from .stage import learns_answers_only, prepare

__all__ = ["learns_answers_only", "load_prepared", "prepare", "rows_of"]
