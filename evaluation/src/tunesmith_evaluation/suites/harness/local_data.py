"""Splits of a task's data, from files of JSON, CSV, Parquet or Arrow."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
import evaluate.config
import huggingface_hub.constants

from tunesmith_data.failures import DataError

_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
_SHARD = re.compile(r"-\d+-of-\d+$")


@contextmanager
def offline() -> Iterator[None]:
    """Time in which the libraries of the hub download nothing."""
    settings = (
        (datasets.config, "HF_HUB_OFFLINE"),
        (evaluate.config, "HF_EVALUATE_OFFLINE"),
        (huggingface_hub.constants, "HF_HUB_OFFLINE"),
    )
    before = [getattr(module, name) for module, name in settings]
    for module, name in settings:
        setattr(module, name, True)
    try:
        yield
    finally:
        for (module, name), value in zip(settings, before, strict=True):
            setattr(module, name, value)


def read_splits(
    path: Path, splits: Sequence[str], evaluated: str, subset: str | None, cache: Path
) -> datasets.DatasetDict:
    """The splits that a file or folder holds.

    A file is the evaluated split. Files of a folder belong to the split after which they, or their folder, are named.

    Args:
        path: file; folder of files; or folder that ``datasets`` saved.
        splits: splits that the task names.
        evaluated: the split with the questions.
        subset: name of the task's subset; its folder is used if there is one.
        cache: folder for temporary files.

    Raises:
        DataError: there are no such files, they can't be read, or the evaluated split is missing or empty.
    """
    try:
        found = _read(path, splits, evaluated, subset, cache)
    except DataError:
        raise
    except Exception as error:  # whatever the readers of many formats raise
        cause = error.__cause__ or error
        words = "a file of it is empty" if isinstance(cause, StopIteration) else repr(cause)
        message = f"{path.name} can't be read as data of a task: {words}"
        raise DataError("HarnessData", message) from error
    if not len(found[evaluated]):
        raise DataError("HarnessData", f"the split {evaluated} of {path.name} is empty: add rows")
    return found


def _read(
    path: Path, splits: Sequence[str], evaluated: str, subset: str | None, cache: Path
) -> datasets.DatasetDict:
    if path.is_file():
        return _load({evaluated: [path]}, cache)
    if subset and (path / subset).is_dir():
        path = path / subset
    if (path / "dataset_dict.json").is_file():
        saved = datasets.DatasetDict.load_from_disk(path)
        if evaluated not in saved:
            raise _missing(path, evaluated, [f"the split {name}" for name in saved])
        return saved
    if (path / "state.json").is_file():
        return datasets.DatasetDict({evaluated: datasets.Dataset.load_from_disk(path)})
    files = sorted(file for file in path.rglob("*") if file.suffix in _BUILDERS and file.is_file())
    by_split = {split: [file for file in files if split in _names(file, path)] for split in splits}
    if not by_split[evaluated]:
        raise _missing(path, evaluated, [str(file.relative_to(path)) for file in files])
    return _load({split: some for split, some in by_split.items() if some}, cache)


def _names(file: Path, folder: Path) -> set[str]:
    """Names of splits that a file may belong to: its own, and those of the folders above it."""
    return {_SHARD.sub("", file.stem), *file.relative_to(folder).parts[:-1]}


def _load(files: Mapping[str, Sequence[Path]], cache: Path) -> datasets.DatasetDict:
    suffixes = {_BUILDERS.get(file.suffix) for some in files.values() for file in some}
    builder = next(iter(suffixes))
    if len(suffixes) > 1 or builder is None:
        known = ", ".join(_BUILDERS)
        raise DataError("HarnessData", f"a task's data must be files of one kind: {known}")
    return datasets.load_dataset(
        builder,
        data_files={split: [str(file) for file in some] for split, some in files.items()},
        cache_dir=cache,
    )


def _missing(path: Path, evaluated: str, found: Sequence[str]) -> DataError:
    held = f"it holds {', '.join(found[:5])}" if found else "it holds no files of rows"
    message = (
        f"{path.name} has no split {evaluated}, which the task asks about ({held}): add {evaluated}.jsonl"
    )
    return DataError("HarnessData", message)
