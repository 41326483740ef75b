"""Model card (README.md) of an artifact, rendered from the run and its final metrics."""

import math
from collections.abc import Mapping
from pathlib import Path

import yaml

from tunesmith_contract.run_config import TrainConfig

CARD_FILE = "README.md"


def write_card(folder: Path, config: TrainConfig, metrics: Mapping[str, float | int | None]) -> None:
    """Write ``README.md`` with the front matter that model hubs read.

    Args:
        folder: target folder.
        config: the run.
        metrics: final metrics by name, such as ``{"steps": 63, "eval_loss": 0.1}``; None values are omitted.
    """
    (folder / CARD_FILE).write_text(render_card(config, metrics))


def render_card(config: TrainConfig, metrics: Mapping[str, float | int | None]) -> str:
    """Text of the card, the same for the same run."""
    sections = [
        f"---\n{yaml.safe_dump(_front_matter(config), sort_keys=True)}---",
        f"# {config.owner.name}",
        _summary(config),
        "## Results",
        _table(_results(config, metrics)),
        "## What went in",
        _table(_lineage(config)),
        "## How it was trained",
        _table(_settings(config)),
        f"Every logged step is in `metrics.jsonl`. Seed {config.hyperparameters.seed}.",
    ]
    return "\n\n".join(sections) + "\n"


def _results(config: TrainConfig, metrics: Mapping[str, float | int | None]) -> dict[str, str]:
    """Formatted final metrics; for pre-training with the perplexity, exp(eval_loss)."""
    numbers = {name: value for name, value in metrics.items() if value is not None}
    if config.method.pretraining is not None and "eval_loss" in numbers:
        numbers["eval_perplexity"] = math.exp(numbers["eval_loss"])
    return {name: f"{value:g}" for name, value in numbers.items()}


def _front_matter(config: TrainConfig) -> dict[str, object]:
    tags = ["tunesmith", config.method.key]
    matter: dict[str, object] = {"base_model": _hub_name(config.base_model)}
    if config.adapter is not None:
        matter["library_name"] = "peft"
        tags.append(config.adapter.type.value.lower())
    else:
        matter["library_name"] = "transformers"
    if config.method.reward is None:
        matter["pipeline_tag"] = "text-generation"
    return matter | {"tags": tags}


def _hub_name(uri: str) -> str:
    """Name of a model on the Hugging Face hub, which the hub renders as a link; other URIs unchanged."""
    return uri.removeprefix("hf://").partition("@")[0] if uri.startswith("hf://") else uri


def _summary(config: TrainConfig) -> str:
    subject = "All weights" if config.adapter is None else f"A {config.adapter.type.value} adapter"
    return (
        f"{subject} of `{config.base_model}`, trained by {config.method.key.upper()} as FineTuneJob "
        f"`{config.owner.namespace}/{config.owner.name}`."
    )


def _lineage(config: TrainConfig) -> dict[str, str]:
    rows = {
        "Base model": f"`{config.base_model}`",
        "Base revision": f"`{config.base_model_revision}`",
        "Data digest": f"`{config.dataset_digest}`",
        "Image": f"`{config.image}`",
    }
    if config.initial is not None:
        rows["Started from"] = f"`{config.initial.digest}`"
    return rows


def _settings(config: TrainConfig) -> dict[str, str]:
    parts = {config.method.key: config.method.member.to_dict()}
    if config.adapter is not None:
        parts["adapter"] = config.adapter.to_dict()
    parts["hyperparameters"] = config.hyperparameters.to_dict()
    parts["compute"] = {
        "nodes": config.nodes,
        "gpusPerNode": config.gpus_per_node,
        "parallelism": config.parallelism.value,
    }
    return {
        f"{part}.{name}": f"`{value}`" for part, values in parts.items() for name, value in values.items()
    }


def _table(rows: dict[str, str]) -> str:
    lines = ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows.items())]
    return "\n".join(lines)


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
