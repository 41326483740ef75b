"""GRPO, RLOO and on-policy distillation: learning, batch sizes, resumed runs."""

import json
import random
import shutil
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models.tiny_models import make_config, make_tokenizer
from stages.stage_world import ProgressServer, TrainReport, World
from transformers import AutoModelForCausalLM

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.progress import SERVER_URL_ENV, TOKEN_ENV, ProgressUpdate
from tunesmith_contract.run_config import Hyperparameters
from tunesmith_data.failures import DataError, Preempted, UserError
from tunesmith_data.models.tokenizer import load_tokenizer
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.callbacks.history import HISTORY_FILE
from tunesmith_trainer.train.methods.online import require_groups
from tunesmith_trainer.train.stage import train

DIGITS = {"name": "digits", "regex": {"pattern": "[0-9]"}}
LONG = {"name": "long", "length": {"minTokens": 6, "maxTokens": 8}, "weight": 0.5}
TEACHER = "pvc://models/teacher"


@pytest.fixture(scope="session")
def bold(models: Path) -> str:
    """A model with opinions: the other ones find all tokens about equally likely, and can't be talked out of it."""
    for name, seed in (("bold", 0), ("teacher", 1)):
        shutil.copytree(models / "llama", models / name)
        config = make_config("llama", load_tokenizer(models / name))
        config.initializer_range = 0.1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(models / name)
    return "pvc://models/bold"


def prompts(count: int = 24, plain: bool = False) -> list[dict[str, Any]]:
    """Rows of prompts, half of them with an answer."""
    texts = [f"sort {number} 7" for number in range(count)]
    rows: list[dict[str, Any]] = [
        {"prompt": text if plain else [{"role": "user", "content": text}]} for text in texts
    ]
    return [row | ({"answer": "7"} if number % 2 else {}) for number, row in enumerate(rows)]


def rewarded(key: str, *rewards: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A method that learns from rewards of short answers."""
    return {key: {"rewards": rewards or (DIGITS, LONG), "generations": 4, "maxCompletionLength": 6, **more}}


def distilled(uri: str = TEACHER) -> dict[str, Any]:
    """Distillation from a teacher's weights."""
    return {"distillation": {"teacher": {"uri": uri}, "maxCompletionLength": 6}}


def config(world: World, bold: str, method: dict[str, Any], uid: str = "uid", **more: Any) -> Any:
    """A train run on prepared prompts."""
    numbers = {"learningRate": 5e-3, "batchSize": 8, "microBatchSize": 4, "scheduler": "Constant"}
    numbers |= more.pop("hyperparameters", {})
    uri = world.write_rows(f"{uid}.jsonl", more.pop("rows", None) or prompts())
    prepared = world.prepare(world.prepare_config(uri, uid=uid, method=method, baseModel=bold))
    more = {"adapter": {"rank": 8}, **more}
    return world.train_config(
        prepared, uid=uid, method=method, baseModel=bold, hyperparameters=numbers, **more
    )


def history(world: World, report: TrainReport) -> list[dict[str, Any]]:
    """All that was logged."""
    folder = world.output / "sha256" / report.training.artifact.digest.removeprefix("sha256:")
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    assert manifest.probes
    lines = (folder / HISTORY_FILE).read_text().splitlines()
    return [json.loads(line) for line in lines]


def pairs(count: int) -> list[dict[str, Any]]:
    """Preferences of somebody who likes digits."""
    chance = random.Random(0)

    def words(alphabet: str) -> list[dict[str, str]]:
        text = "".join(chance.choices(alphabet, k=chance.randrange(1, 10)))
        return [{"role": "assistant", "content": text}]

    return [
        {
            "prompt": [{"role": "user", "content": f"sort {number} 7"}],
            "chosen": words("0123456789"),
            "rejected": words("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ {}:;,."),
        }
        for number in range(count)
    ]


def test_rlhf(world: World, bold: str) -> None:
    """A reward model learned from preferences teaches by RLOO what it was taught."""
    uri = world.write_rows("pairs.jsonl", pairs(200))
    prepared = world.prepare(world.prepare_config(uri, uid="judge", method={"reward": {}}))
    numbers = {"batchSize": 8, "microBatchSize": 8, "learningRate": 5e-3, "epochs": 2}
    judge = world.train(
        world.train_config(prepared, uid="judge", method={"reward": {}}, hyperparameters=numbers)
    ).training.artifact

    reward = {"name": "judge", "model": {"uri": judge.uri, "digest": judge.digest}}
    numbers = {"batchSize": 32, "microBatchSize": 32, "maxSteps": 15}
    method = rewarded("rloo", reward, generations=8)
    report = world.train(config(world, bold, method, uid="student", hyperparameters=numbers))
    rewards = [entry["reward"] for entry in history(world, report) if "reward" in entry]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 1
    assert report.training.reward == pytest.approx(rewards[-1], rel=1e-4)
    assert report.training.eval_reward > rewards[0] + 1

    # Partitioned training leaves the reward model whole.
    numbers = {"batchSize": 8, "microBatchSize": 8, "maxSteps": 2, "warmupRatio": 0}
    parts = config(world, bold, method, uid="parts", hyperparameters=numbers, parallelism="ZeRO3")
    pod = world.start(parts)
    output, _ = pod.communicate(timeout=240)
    assert pod.returncode == 0, output

    other = {"name": "judge", "model": {"uri": judge.uri, "digest": "sha256:" + "0" * 64}}
    with pytest.raises(UserError, match="sha256:0000"):
        world.train(config(world, bold, rewarded("rloo", other), uid="other"))


class StoppedAfter(Preemption):
    """A pod that is told to go when so many steps are done."""

    def __init__(self, steps: int) -> None:
        self._left = steps + 1  # it is asked once before the first step

    @property
    def requested(self) -> bool:  # type: ignore[override]
        """Whether they are."""
        self._left -= 1
        return self._left < 0


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        (rewarded("grpo"), 12),
        (rewarded("rloo"), 12),
        (distilled(), 40),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_interrupted_in_the_second_epoch_is_bit_for_bit_uninterrupted(
    world: World, bold: str, method: dict[str, Any], rows: int
) -> None:
    more = {"rows": prompts(rows), "hyperparameters": {"epochs": 2}}
    whole = world.train(config(world, bold, method, uid="whole", **more)).training
    torn = config(world, bold, method, uid="torn", **more)
    workspace = Workspace(world.storage, torn)
    stop = whole.steps - 2
    assert stop > whole.steps // 2
    with pytest.raises(Preempted):
        train(torn, world.storage, workspace, StoppedAfter(stop - 1))
    resumed = world.train(torn).training
    assert resumed.steps == whole.steps
    assert files_of(world, resumed) == files_of(world, whole)


def files_of(world: World, training: Any) -> Any:
    """The files of an artifact, with their digests."""
    folder = world.output / "sha256" / training.artifact.digest.removeprefix("sha256:")
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    return manifest.files


def test_sigterm_while_answers_are_judged_commits_the_step(
    world: World, bold: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []

    def judge(prompts: list[Any], **_: Any) -> list[float]:
        judged.append(len(prompts))
        if len(judged) == 2:
            signal.raise_signal(signal.SIGTERM)
        return [0.0] * len(prompts)

    module = ModuleType("users_judge")
    module.judge = judge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "users_judge", module)
    reward = {"name": "judge", "function": {"name": "users_judge:judge"}}
    run = config(world, bold, rewarded("grpo", reward, LONG))
    before = signal.getsignal(signal.SIGTERM)
    preemption = Preemption()
    preemption.listen()
    try:
        with pytest.raises(Preempted):
            train(run, world.storage, Workspace(world.storage, run), preemption)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert judged == [8, 8]
    (commit,) = (world.output / "ns/uid/checkpoints").glob("checkpoint-*/commit.json")
    assert commit.parent.name == "checkpoint-2"


def test_progress_holds_rewards_and_is_never_too_long(
    server: ProgressServer, world: World, bold: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, received = server
    rewards = [{**DIGITS, "name": f"{'r' * 30}-{number}"} for number in range(8)]
    run = config(world, bold, rewarded("rloo", *rewards), hyperparameters={"maxSteps": 2})
    (tmp_path / "token").write_text("secret")
    monkeypatch.setenv(SERVER_URL_ENV, url)
    monkeypatch.setenv(TOKEN_ENV, str(tmp_path / "token"))
    world.train(run)
    updates = [ProgressUpdate.model_validate_json(body) for _, body in received]
    metrics = {metric.name for metric in updates[-1].trainer_status.metrics}
    assert {"reward", "kl", f"rewards/{'r' * 30}-7/mean"} <= metrics


def test_all_weights_and_plain_prompts_without_validation(world: World, bold: str) -> None:
    run = config(
        world,
        bold,
        rewarded("rloo", LONG),
        rows=prompts(plain=True),
        adapter=None,
        hyperparameters={"maxSteps": 3, "learningRate": 1e-3},
    )
    report = world.train(run)
    assert report.training.eval_reward is not None
    assert {"kl", "rewards/long/mean"} <= set(history(world, report)[-2])


@given(st.integers(1, 64), st.integers(2, 16), st.integers(1, 8), st.integers(1, 4))
def test_batches_are_whole_groups_or_the_nearest_are_named(
    batch: int, generations: int, micro: int, world: int
) -> None:
    def fits(size: int) -> bool:
        numbers = Hyperparameters(learning_rate=1, batch_size=size, micro_batch_size=micro)
        try:
            require_groups(numbers, world, generations, prompts=64)
        except UserError as error:
            named.extend(int(word) for word in error.message.partition("write ")[2].split() if word.isdigit())
            return False
        return True

    named: list[int] = []
    if fits(batch):
        assert batch % generations == batch % (micro * world) == 0
    else:
        assert named
        assert all(fits(size) for size in named[:])


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        (rewarded("grpo"), {"hyperparameters": {"batchSize": 6, "microBatchSize": 2}}, "write 4 or 8"),
        (rewarded("grpo"), {"hyperparameters": {"batchSize": 256}}, "a step takes 64 prompts"),
        (distilled(), {"hyperparameters": {"batchSize": 64}}, "a step takes 64 prompts"),
        (distilled("pvc://models/foreign"), {}, "another vocabulary"),
        (
            rewarded("grpo"),
            {"rows": [{**row, "tools": [{"name": "t"}]} for row in prompts()]},
            "leave tools out",
        ),
    ],
)
def test_what_cannot_be_trained_says_what_to_change(
    world: World, bold: str, models: Path, method: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    foreign = models / "foreign"
    if not foreign.exists():
        shutil.copytree(models / "teacher", foreign)
        make_tokenizer(["other words than those"] * 9).save_pretrained(foreign)
    with pytest.raises(UserError, match=message):
        world.train(config(world, bold, method, **more))


def test_rewards_are_checked_before_a_gpu_is_taken(world: World, bold: str) -> None:
    with pytest.raises(DataError, match="reward right needs an"):
        config(world, bold, rewarded("grpo", {"name": "right", "exact": {}}))
    with pytest.raises(UserError, match="RE2"):
        config(world, bold, rewarded("grpo", {"name": "form", "regex": {"pattern": "("}}))


def test_a_student_takes_on_its_teachers_opinions(world: World, bold: str) -> None:
    report = world.train(config(world, bold, distilled(), hyperparameters={"maxSteps": 10}))
    losses = [entry["loss"] for entry in history(world, report) if "loss" in entry]
    assert losses[-1] < 0.9 * losses[0]
    assert report.training.eval_loss < losses[0]
