"""Definitions of tasks: search by name, addition of local data, and refusal of unsupported ones."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.evaluation import HarnessTask
from tunesmith_data.failures import UserError

from .local_data import offline, read_splits

#: Library that loads files without a download.
_FILE_READERS = frozenset({"json", "csv", "parquet", "arrow"})
_BUILT_IN = Path(lm_eval.tasks.__file__).parent


def load_task(
    harness: HarnessTask, data: Path | None, include: Path | None, seed: int, cache: Path
) -> ConfigurableTask:
    """Task with its data; nothing is downloaded.

    Args:
        harness: name of the task and number of its examples.
        data: file or folder with its data; None if the definition names files.
        include: folder with definitions, which go before the built-in ones.
        seed: seed by which worked examples are drawn.
        cache: folder for temporary files.

    Raises:
        UserError: there is no such task, or one that can't be evaluated.
        DataError: its data is missing or can't be read.
    """
    definition = find_definition(harness.task, include)
    with offline():
        # Before any of its code runs.
        _check(_read_definition(definition, harness.task, resolve=False), harness.task)
        config = _read_definition(definition, harness.task)
        if harness.few_shot is not None:
            config["num_fewshot"] = harness.few_shot
        path = data or _named_data(config, definition, harness.task)
        config = _with_data(config, path, harness.task, cache)
        try:
            task = ConfigurableTask(config=config)
        except Exception as error:  # whatever the code of a definition raises
            raise UserError("HarnessTask", f"task {harness.task} does not fit its data: {error!r}") from error
    unknown = [name for name, metric in task._metric_fn_list.items() if metric is None]
    if unknown and task.config.process_results is None:
        message = f"task {harness.task} has metrics that would have to be downloaded: {', '.join(unknown)}"
        raise UserError("HarnessMetric", message)
    task.set_fewshot_seed(seed)
    return task


def find_definition(task: str, include: Path | None) -> Path:
    """File that defines a task.

    Raises:
        UserError: there is none, or the name is that of a group of tasks.
    """
    name = rf"[\"']?{re.escape(task)}[\"']?[ \t]*(#.*)?$"
    defines = re.compile(rf"^[\"']?task[\"']?:[ \t]*{name}", re.MULTILINE)
    groups = re.compile(rf"^([\"']?(group|tag)[\"']?:[ \t]*{name}|[ \t]*-[ \t]*{name})", re.MULTILINE)
    is_group = False
    for file in (file for folder in filter(None, (include, _BUILT_IN)) for file in _definitions(folder)):
        data = file.read_bytes()
        if task.encode() not in data:
            continue
        text = data.decode(errors="replace")
        if defines.search(text):
            return file
        is_group = is_group or bool(groups.search(text))
    if is_group:
        message = (
            f"{task} is a group of tasks of lm-evaluation-harness: write one suite for each of its tasks"
        )
        raise UserError("HarnessTask", message)
    message = (
        f"lm-evaluation-harness has no task {task}: write the name of one, or add a folder with its definition "
        "as include"
    )
    raise UserError("HarnessTask", message)


def _definitions(folder: Path) -> Iterator[Path]:
    """YAML files below a folder, in an order that does not depend on the file system."""
    for path, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(path, file) for file in sorted(files) if file.endswith(".yaml"))


def code_digest(include: Path | None) -> str:
    """Digest of the Python files beside own definitions; empty without any. Built-in ones belong to the library."""
    files = sorted(include.rglob("*.py")) if include is not None and include.is_dir() else []
    described = {
        str(file.relative_to(include)): sha256_digest(file.read_bytes()) for file in files if include
    }
    return sha256_digest(canonical_json(described)) if described else ""


def _read_definition(file: Path, task: str, *, resolve: bool = True) -> dict[str, Any]:
    try:
        config: dict[str, Any] = load_yaml(file, resolve_func=resolve)
    except ModuleNotFoundError as error:
        message = (
            f"task {task} needs the Python package {error.name}, which is not installed: install it where "
            "tunesmith-eval runs, or use a trainer image that is built with it; else choose another task. ifeval needs "
            "NLTK's punkt_tab, too: write a folder that has it into NLTK_DATA"
        )
        raise UserError("HarnessPackage", message) from error
    except Exception as error:  # whatever the code of a definition raises
        raise UserError("HarnessTask", f"the definition of task {task} can't be read: {error!r}") from error
    for key in ("tag", "group", "task_list"):
        config.pop(key, None)
    return config


def _check(config: Mapping[str, Any], task: str) -> None:
    """Refuse tasks that can't be answered or scored here."""
    reasons = {
        "is a program of its own, which loads its data itself": "class" in config,
        "has images or sound": "doc_to_image" in config or "doc_to_audio" in config,
        "runs code that a model wrote; use the metric CodeTests": bool(config.get("unsafe_code")),
        "measures the likelihood of whole texts; use own data with the metric BitsPerByte": config.get(
            "output_type"
        )
        == "loglikelihood_rolling",
        "asks each question several times; write a definition with repeats: 1": config.get("repeats", 1) != 1,
        "compares with likelihoods without the question (acc_mutual_info)": any(
            metric.get("metric") == "acc_mutual_info" for metric in config.get("metric_list") or ()
        ),
    }
    for reason, applies in reasons.items():
        if applies:
            raise UserError("HarnessTask", f"task {task} can't be evaluated: it {reason}")


def _named_data(config: Mapping[str, Any], definition: Path, task: str) -> Path:
    """File or folder that the definition itself names, relative to its own folder.

    Raises:
        UserError: it names none, so that data would have to be downloaded.
    """
    path = str(config.get("dataset_path") or "")
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if path in _FILE_READERS and isinstance(files, str):
        return definition.parent / files
    if path and (definition.parent / path).exists():
        return definition.parent / path
    source = f" (its definition names {path})" if path else ""
    message = (
        f"task {task} has no data, and none is downloaded{source}: copy the data to a claim or bucket, and write "
        "harness.data: pvc://claim/folder"
    )
    raise UserError("HarnessData", message)


def _with_data(config: Mapping[str, Any], path: Path, task: str, cache: Path) -> dict[str, Any]:
    """Definition whose data is that of the path, without splits that the path lacks."""
    if not path.exists():
        raise UserError("HarnessData", f"the data of task {task} does not exist: {path.name}")
    evaluated = config.get("test_split") or config.get("validation_split")
    if not evaluated:
        raise UserError("HarnessTask", f"task {task} names no test_split or validation_split: add one")
    own_examples = dict(config.get("fewshot_config") or {})
    example_split = own_examples.get("split") or config.get("fewshot_split") or config.get("training_split")
    keys = ("training_split", "validation_split", "test_split", "fewshot_split")
    splits = list(filter(None, dict.fromkeys([*(config.get(key) for key in keys), example_split])))
    dataset = read_splits(path, splits, evaluated, config.get("dataset_name"), cache)
    _check_examples(config, task, evaluated, example_split, "samples" in own_examples, dataset)
    if own_examples.get("split") not in dataset:
        own_examples.pop("split", None)
    kept = {key: config[key] for key in keys if config.get(key) in dataset}
    rest = {key: value for key, value in config.items() if key not in (*keys, "dataset_kwargs")}
    return {
        **rest,
        **kept,
        **({"fewshot_config": own_examples} if own_examples else {}),
        "custom_dataset": lambda **_: dataset,
    }


def _check_examples(
    config: Mapping[str, Any],
    task: str,
    evaluated: str,
    example_split: str | None,
    has_samples: bool,
    splits: Mapping[str, Any],
) -> None:
    """Check that worked examples come from another split than the questions."""
    if not config.get("num_fewshot") or (has_samples and example_split is None):
        return
    if example_split is None or example_split == evaluated:
        message = f"task {task} would draw worked examples from its own questions: write fewShot: 0"
        raise UserError("HarnessExamples", message)
    if example_split not in splits:
        message = (
            f"task {task} draws worked examples from the split {example_split}, which the data lacks: add "
            f"{example_split}.jsonl, or write fewShot: 0"
        )
        raise UserError("HarnessExamples", message)
