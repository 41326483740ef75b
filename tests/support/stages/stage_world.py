"""Mount root with models, data and output, and runs of stages in it."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from stages.forked_pods import PodProcess

from tunesmith_contract.finished import FinishedWork
from tunesmith_contract.report import DatasetReport, EvaluationReport, ModelReport, RunReport, TrainingReport
from tunesmith_contract.run_config import (
    AnyConfig,
    EvaluateConfig,
    PrepareConfig,
    TrainConfig,
    parse_run_config,
)
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.prepare import prepare
from tunesmith_evaluation.stage.evaluate import evaluate
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.stage import train


def make_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Chat rows of a task that a tiny model learns a little of."""
    chance = random.Random(seed)
    pairs = [(chance.randrange(1000), chance.randrange(1000)) for _ in range(count)]
    return [make_row(f"sort {a} {b}", json.dumps({"low": min(a, b), "high": max(a, b)})) for a, b in pairs]


def make_row(question: str, answer: str) -> dict[str, Any]:
    """One chat row."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def make_preferences(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Preference rows of messages: the better answer is the lower number."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        low, high = sorted(chance.sample(range(1000), 2))
        answers = {"chosen": {"low": low}, "rejected": {"high": high}}
        row = {key: [{"role": "assistant", "content": json.dumps(answer)}] for key, answer in answers.items()}
        rows.append({"prompt": [{"role": "user", "content": f"lower of {high} {low}"}], **row})
    return rows


class PrepareReport(RunReport):
    """Report of a successful prepare stage."""

    model: ModelReport
    dataset: DatasetReport


class TrainReport(RunReport):
    """Report of a successful train stage."""

    training: TrainingReport


class EvaluateReport(RunReport):
    """Report of a successful evaluate stage."""

    evaluation: EvaluationReport


Report = TypeVar("Report", bound=RunReport)
Config = TypeVar("Config", bound=AnyConfig)


def narrow(kind: type[Report], report: RunReport | None) -> Report:
    """The same report in the type of its stage."""
    assert report is not None
    return cast(Report, kind.model_construct(report.model_fields_set, **dict(report)))


class World:
    """A mount root, and configurations that run in it."""

    def __init__(self, root: Path, models: Path) -> None:
        self.root = root
        self.storage = Storage(root)
        (root / "pvc").mkdir()
        (root / "pvc/models").symlink_to(models)
        self.data = root / "pvc/data"
        self.output = root / "pvc/out"
        self.data.mkdir()
        self.output.mkdir()

    def write_rows(self, name: str, rows: list[Any]) -> str:
        """A JSONL file of the data claim; its URI."""
        (self.data / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"pvc://data/{name}"

    def prepare_config(self, train: str | list[str], uid: str = "uid", **more: Any) -> PrepareConfig:
        """A prepare run."""
        config = {
            "stage": "prepare",
            "baseModel": "pvc://models/llama",
            "train": train,
            "validation": {"fraction": 0.1},
            "method": {"sft": {"maxLength": 128}},
            "seed": 1,
        }
        return self._parse(config | more, PrepareConfig, "FineTuneJob", uid)

    def train_config(
        self,
        prepared: RunReport,
        uid: str = "uid",
        hyperparameters: dict[str, Any] | None = None,
        **more: Any,
    ) -> TrainConfig:
        """A train run on what was prepared."""
        assert prepared.model
        assert prepared.dataset
        numbers = {"epochs": 1, "learningRate": 1e-2, "batchSize": 4, "microBatchSize": 2}
        config = {
            "stage": "train",
            "baseModel": "pvc://models/llama",
            "baseModelRevision": prepared.model.revision,
            "datasetDigest": prepared.dataset.digest,
            "method": {"sft": {"maxLength": 128}},
            "adapter": {"rank": 4, "dropout": 0.1},
            "hyperparameters": numbers | (hyperparameters or {}),
            "checkpoints": {"everySteps": 3, "keep": 2},
            "image": "trainer@sha256:0",
        }
        return self._parse(config | more, TrainConfig, "FineTuneJob", uid)

    def evaluate_config(self, uid: str = "eval", **more: Any) -> EvaluateConfig:
        """An evaluate run."""
        config = {"stage": "evaluate", "baseModel": "pvc://models/llama", "policy": "{}"}
        return self._parse(config | more, EvaluateConfig, "EvalRun", uid)

    def prepare(self, config: PrepareConfig, finished: FinishedWork | None = None) -> PrepareReport:
        """Run the stage here."""
        workspace = Workspace(self.storage, config)
        report = prepare(config, self.storage, workspace, ProgressReporter({}), finished)
        return narrow(PrepareReport, report)

    def train(self, config: TrainConfig) -> TrainReport:
        """Run the stage here, a second time where a pod would start a new process to finish it."""
        workspace = Workspace(self.storage, config)
        report = train(config, self.storage, workspace, Preemption())
        if report is None:
            report = train(config, self.storage, workspace, Preemption())
        return narrow(TrainReport, report)

    def evaluate(self, config: EvaluateConfig, finished: FinishedWork | None = None) -> EvaluateReport:
        """Run the stage here."""
        workspace = Workspace(self.storage, config)
        report = evaluate(config, self.storage, workspace, ProgressReporter({}), finished)
        return narrow(EvaluateReport, report)

    def start(self, config: AnyConfig, **env: str) -> subprocess.Popen[str] | PodProcess:
        """Run the stage as a pod does."""
        (self.root / "run.json").write_text(config.to_json())
        arguments = [config.stage, "--mount-root", str(self.root), "--config", str(self.root / "run.json")]
        arguments += ["--termination-log", str(self.root / "log")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **env}
        if isinstance(config, TrainConfig):
            return PodProcess(arguments, environment)
        return subprocess.Popen(
            [sys.executable, "-m", "tunesmith_trainer", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _parse(self, config: dict[str, Any], kind: type[Config], owner: str, uid: str) -> Config:
        owned = {
            "owner": {"kind": owner, "namespace": "ns", "name": "run", "uid": uid},
            "output": "pvc://out",
        }
        parsed = parse_run_config(json.dumps(config | owned))
        assert isinstance(parsed, kind)
        return parsed


class RowBuilders:
    """Builders of training rows for tiny models."""

    rows = staticmethod(make_rows)
    row = staticmethod(make_row)
    preferences = staticmethod(make_preferences)


class ProgressServer(NamedTuple):
    """Progress server of the operator, as the trainer sees it.

    Attributes:
        url: its URL.
        received: Authorization header and body of each request.
    """

    url: str
    received: list[tuple[str | None, bytes]]
