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
from tunesmith_contract.layout import COMMIT_FILE
from tunesmith_contract.shared_rules.verdict import Verdict
from tunesmith_evaluation.__main__ import main
from tunesmith_evaluation.command.run_command import VERDICT_CODES
from tunesmith_evaluation.report.document import REPORT_FILE, EvaluationDocument, SideKind
from tunesmith_storage.files import file_digest

Change = Callable[[Path], Any]
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Undo the silence of logs after a test."""
    yield
    logging.disable(logging.NOTSET)


def run(
    folder: Path, models: Path, change: Change, *options: str, name: str = "tuned", digest: str | None = None
) -> int:
    """Exit code for a candidate in a changed copy of a model, and the model itself as the baseline.

    Args:
        name: name of the folder with the copy.
        digest: digest of the checkpoint that the folder is; None for a model.
    """
    candidate = folder / name
    shutil.copytree(models / "llama", candidate)
    change(candidate)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, make_rows(4))))
    spec = {
        "baseModel": {"uri": str(models / "llama")},
        "candidate": {"uri": name, "digest": digest} if digest else {"model": {"uri": str(candidate)}},
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


def commit(folder: Path) -> str:
    """Commit a folder as a checkpoint of a job; its digest."""
    files = [
        {"path": path.name, "sizeBytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.iterdir())
    ]
    manifest = {"step": 200, "files": files, "time": "2030-01-01T00:00:00Z"}
    (folder / COMMIT_FILE).write_text(json.dumps(manifest))
    return file_digest(folder / COMMIT_FILE)


def commit_reward_model(folder: Path) -> str:
    configure(folder, architectures=["LlamaForSequenceClassification"])
    return commit(folder)


@pytest.mark.parametrize("name", ["checkpoint-200", "best"])
def test_a_checkpoint_in_a_folder_is_evaluated(tmp_path: Path, models: Path, name: str) -> None:
    shutil.copytree(models / "llama", tmp_path / "first")
    digest = commit(tmp_path / "first")
    code = run(tmp_path, models, commit, name=name, digest=digest)
    assert code == VERDICT_CODES[Verdict.INCONCLUSIVE], "it is the baseline's model, with four items"
    report = EvaluationDocument.model_validate_json((tmp_path / "out" / REPORT_FILE).read_bytes())
    candidate = report.sides[0]
    assert (candidate.kind, candidate.digest) == (SideKind.CHECKPOINT, digest)
    assert candidate.uri == str(tmp_path / name)
    assert any("the rows that it was trained on are not known" in line for line in report.warnings)


@pytest.mark.parametrize(
    ("change", "digest", "words"),
    [
        (commit, "sha256:" + "0" * 64, "write its digest, or name another checkpoint"),
        (lambda _: None, "sha256:" + "0" * 64, "has no commit.json"),
        (commit_reward_model, None, "is a reward model"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_said(
    tmp_path: Path,
    models: Path,
    change: Change,
    digest: str | None,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(models / "llama", tmp_path / "first")
    change(tmp_path / "first")
    digest = digest or file_digest(tmp_path / "first" / COMMIT_FILE)
    assert run(tmp_path, models, change, name="checkpoint-200", digest=digest) == ExitCode.USER_ERROR
    assert words in capsys.readouterr().err


def test_gpus_that_are_not_there_are_an_error(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert run(tmp_path, models, lambda _: None, "--gpus", "1") == ExitCode.INFRASTRUCTURE
    assert "1 GPUs are to be used, but 0 can be seen here" in capsys.readouterr().err
