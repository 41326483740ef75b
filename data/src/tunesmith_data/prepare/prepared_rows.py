"""Prepared rows, as training loads them."""

from pathlib import Path

from tunesmith_contract.layout import TRAIN_FILE, VALIDATION_FILE
from tunesmith_data.failures import DataError
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.table.parquet import read_rows
from tunesmith_data.rows.table.split import Split, dataset_digest, digests_of


def load_prepared(folder: Path, digest: str) -> Split:
    """The rows that prepare left.

    Raises:
        DataError: they are not there, or not what was prepared.
    """
    try:
        split = Split(tuple(read_rows(folder / TRAIN_FILE)), tuple(read_rows(folder / VALIDATION_FILE)))
    except FileNotFoundError as error:
        message = f"{folder} has no prepared data: make a new job"
        raise DataError("PreparedDataMissing", message) from error
    if dataset_digest(digests_of(split.train), digests_of(split.validation)) != digest:
        raise DataError(
            "PreparedDataChanged", f"the data in {folder} is not what was prepared: make a new job"
        )
    return split


def rows_of(split: Split) -> list[Row]:
    """Held-out rows first, then the training rows."""
    return [*split.validation, *split.train]
