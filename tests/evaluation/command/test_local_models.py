"""``tunesmith-eval run`` with models in folders of this computer, in which something is wrong."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from stages.stage_world import make_rows

from tunesmith_contract.exit_codes import ExitCode
from tunesmith_evaluation.__main__ import main

Change = Callable[[Path], Any]
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Undo the silence of logs after a test."""
    yield
    logging.disable(logging.NOTSET)


def run(folder: Path, models: Path, change: Change, *options: str) -> int:
    """Exit code for a candidate in a changed copy of a model, and the model itself as the baseline."""
    candidate = folder / "tuned"
    shutil.copytree(models / "llama", candidate)
    change(candidate)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, make_rows(4))))
    spec = {
        "baseModel": {"uri": str(models / "llama")},
        "candidate": {"model": {"uri": str(candidate)}},
        "suites": [
            {
                "name": "sort",
                "dataset": {"uri": "rows.jsonl"},
                "metrics": [{"type": "ExactMatch"}],
                "maxNewTokens": 2,
            }
        ],
        "gates": [{"suite": "sort", "metric": "ExactMatch", "expect": "Better"}],
        "safety": {"disabled": True, "reason": "numbers"},
    }
    (folder / "eval.yaml").write_text(yaml.safe_dump(spec))
    return main(["run", str(folder / "eval.yaml"), "--output", str(folder / "out"), *options])


def cut_off(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-100])


def name_a_shard(folder: Path) -> None:
    index = {"weight_map": {"a": WEIGHTS, "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut_off, f"{WEIGHTS} of "),
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), f"{WEIGHTS} of "),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"x" * 100), f"{WEIGHTS} of "),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"\4" + bytes(7) + b"{,,}"), f"{WEIGHTS} of "),
        (lambda folder: (folder / WEIGHTS).unlink(), "has no *.safetensors"),
        (
            name_a_shard,
            "has no model-00002-of-00002.safetensors, which its model.safetensors.index.json names",
        ),
        (
            lambda folder: (folder / "tokenizer.json").write_text("{"),
            "the tokenizer of the model of candidate",
        ),
        (lambda folder: configure(folder, hidden_size="many"), "the model of candidate can't be read"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_model(
    tmp_path: Path, models: Path, change: Change, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, models, change) == ExitCode.USER_ERROR
    error = capsys.readouterr().err
    assert words in error
    assert "base model" not in error


def lose_a_weight(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize("change", [lose_a_weight, lambda folder: configure(folder, intermediate_size=96)])
def test_no_model_answers_with_random_weights(
    tmp_path: Path, models: Path, change: Change, capsys: pytest.CaptureFixture[str]
) -> None:
    """A baseline that has lost weights would be beaten by anything."""
    assert run(tmp_path, models, change) == ExitCode.USER_ERROR
    assert "do not fit its config.json: model.layers." in capsys.readouterr().err


def test_gpus_that_are_not_there_are_an_error(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert run(tmp_path, models, lambda _: None, "--gpus", "1") == ExitCode.INFRASTRUCTURE
    assert "1 GPUs are to be used, but 0 can be seen here" in capsys.readouterr().err
