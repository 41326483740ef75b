"""Interrupted runs end bit for bit like uninterrupted ones: signals, lost pods, full volumes."""

import errno
import random
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stages.full_disk import full_disk
from stages.gangs import Pod, end_gang, history, kill, start_gang
from stages.stage_world import RowBuilders, World

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.exit_codes import ExitCode, FailureCategory
from tunesmith_contract.layout import MICRO_BATCH_ENV
from tunesmith_contract.report import Outcome
from tunesmith_data.failures import InfrastructureError, Preempted
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.checkpoints.folder import CheckpointFolder, newest_checkpoint, step_of
from tunesmith_trainer.checkpoints.writer_lease import LEASE_FILE
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.disk_full import is_full_storage
from tunesmith_trainer.train.stage import train

INTERVAL = 3
STEPS = 12
SECONDS = 300


def preference_row(row: dict[str, Any]) -> dict[str, Any]:
    """A pair: the right answer, and one that is not."""
    question, answer = row["messages"]
    wrong = {"role": "assistant", "content": "no idea"}
    return {"prompt": [question], "chosen": [answer], "rejected": [wrong]}


METHODS: dict[str, dict[str, Any]] = {"sft": {"sft": {"maxLength": 128}}, "dpo": {"dpo": {"maxLength": 128}}}


class Runs:
    """Runs of one configuration: one that nobody disturbs, and one that is interrupted."""

    def __init__(self, world: World, make: RowBuilders, method: str, ranks: int) -> None:
        self.world = world
        rows = make.rows(26)
        rows = [preference_row(row) for row in rows] if method == "dpo" else rows
        self._train = world.write_rows(f"{method}-{ranks}.jsonl", rows)
        self._method = METHODS[method]
        self.ranks = ranks
        self._name = f"{method}-{ranks}"
        self.whole = self._config("whole")
        self.torn = self._config("torn")

    def _config(self, kind: str) -> Any:
        uid = f"{self._name}-{kind}"
        prepared = self.world.prepare(
            self.world.prepare_config(
                self._train, uid=uid, method=self._method, validation={"fraction": 0.08}
            )
        )
        return self.world.train_config(
            prepared,
            uid=uid,
            method=self._method,
            hyperparameters={"epochs": 2, "microBatchSize": 1, "maxSteps": STEPS},
            checkpoints={"everySteps": INTERVAL, "keep": 3},
        )

    def checkpoints(self, config: Any) -> Path:
        folder: Path = self.world.output / "ns" / config.owner.uid / "checkpoints"
        return folder

    def newest(self) -> int:
        """The step of the interrupted run's newest checkpoint."""
        folder = newest_checkpoint(self.checkpoints(self.torn))
        assert folder
        return step_of(folder)

    def finish(self, config: Any, *, nodes: int = 1) -> Any:
        """Let a run come to its end; the report."""
        if self.ranks == 1:
            return self.world.train(config)
        pods = start_gang(self.world.root, config, nodes=nodes, workers=self.ranks // nodes)
        assert end_gang(pods, SECONDS) == [0] * nodes, pods[0].output
        return pods[0].report

    def interrupt(self, at: int, how: Any, *, nodes: int = 1) -> list[Pod]:
        """Run until the loss of the step ``at`` of this attempt is logged, do ``how`` to the pods, wait."""
        seen = []
        pods: list[Pod] = []

        def look(line: str) -> None:
            if "'loss'" in line:
                seen.append(line)
                if len(seen) == at:
                    how(pods)

        pods += start_gang(self.world.root, self.torn, nodes=nodes, workers=self.ranks // nodes, on_line=look)
        end_gang(pods, SECONDS)
        assert len(seen) >= at, pods[0].output
        return pods

    def outcome(self, config: Any, report: Any) -> Any:
        """All that must be equal: what was logged, and the bytes of the artifact's weights."""
        digest = report.training.artifact.digest.removeprefix("sha256:")
        manifest = Manifest.model_validate_json(
            (self.world.output / "sha256" / digest / "manifest.json").read_bytes()
        )
        weights = [file for file in manifest.files if file.path.endswith(".safetensors")]
        return history(self.checkpoints(config)), weights, manifest.probes


def terminate(pods: list[Pod]) -> None:
    """Tell the last pod to go."""
    pods[-1].process.send_signal(signal.SIGTERM)


def kill_last_rank(pods: list[Pod]) -> None:
    """Kill the last worker as the kernel would."""
    kill(pods[-1].workers()[-1])


def tear_newest(runs: Runs, chance: random.Random) -> int:
    """Damage a file of the newest checkpoint; the step that is left."""
    folder = newest_checkpoint(runs.checkpoints(runs.torn))
    assert folder
    file = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    file.write_bytes(file.read_bytes()[:-1])
    return runs.newest()


@pytest.mark.parametrize("ranks", [1, 2])
def test_preempted_killed_and_torn_is_bit_for_bit_undisturbed(
    shared_world: World, make: RowBuilders, ranks: int
) -> None:
    chance = random.Random(ranks)
    runs = Runs(shared_world, make, "sft", ranks)
    expected = runs.outcome(runs.whole, runs.finish(runs.whole))

    # Told to go: one pod of the run, and all of them stop with a checkpoint of the very step.
    at = chance.randint(4, 5)
    pods = runs.interrupt(at, terminate, nodes=ranks)
    assert [pod.process.returncode for pod in pods] == [ExitCode.PREEMPTED] * ranks, pods[0].output
    first = runs.newest()
    assert at <= first <= at + 1
    report = pods[0].report
    assert report.outcome is Outcome.PREEMPTED
    assert report.checkpoint
    assert (report.checkpoint.step, report.checkpoint.uri.rpartition("/")[2]) == (
        first,
        f"checkpoint-{first}",
    )

    # A killed rank: all end, at most one interval is lost, and what is left is named.
    at = chance.randint(3, 5)
    pods = runs.interrupt(at, kill_last_rank, nodes=ranks)
    second = runs.newest()
    assert first + at - INTERVAL <= second < STEPS
    check_killed(pods, second)

    left = tear_newest(runs, chance)
    assert left < second
    report = runs.finish(runs.torn)
    assert runs.outcome(runs.torn, report) == expected
    assert [checkpoint.step for checkpoint in report.training.checkpoints][-1] == STEPS


def check_killed(pods: list[Pod], step: int) -> None:
    """The pod of the killed rank names it; the others lost their connection."""
    report = pods[-1].report
    assert report.failure
    assert (report.failure.reason, report.failure.rank) == ("WorkerDied", len(pods) - 1)
    assert "SIGKILL" in report.failure.message
    assert pods[-1].process.returncode == ExitCode.INFRASTRUCTURE
    for pod in pods[:-1]:
        assert pod.process.returncode == ExitCode.COMMUNICATION, pod.output
        assert pod.report.failure
        assert pod.report.failure.category is FailureCategory.COMMUNICATION
    assert pods[0].report.checkpoint
    assert pods[0].report.checkpoint.step == step


@pytest.mark.parametrize(
    ("ranks", "how"), [(1, kill_last_rank), pytest.param(2, terminate, marks=pytest.mark.long)]
)
def test_preferences_are_learned_bit_for_bit_too(
    shared_world: World, make: RowBuilders, ranks: int, how: Any
) -> None:
    runs = Runs(shared_world, make, "dpo", ranks)
    expected = runs.outcome(runs.whole, runs.finish(runs.whole))
    at = random.Random(10 + ranks).randint(4, 10)
    runs.interrupt(at, how)
    assert at - INTERVAL <= runs.newest() < STEPS
    assert runs.outcome(runs.torn, runs.finish(runs.torn)) == expected


class PreemptAfter:
    """A pod that is told to go when it has been asked ``count`` times whether it was."""

    def __init__(self, count: int) -> None:
        self._left = count

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.fixture
def small(world: World, make: RowBuilders) -> Any:
    """A prepared run of 6 steps, and how it is run here."""
    prepared = world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(26))))
    config = world.train_config(
        prepared,
        hyperparameters={"epochs": 2, "microBatchSize": 2, "maxSteps": 6},
        adapter={"rank": 4, "dropout": 0.0},
        checkpoints={"everySteps": 2, "keep": 2},
    )

    def run(preemption: Any) -> Any:
        return train(config, world.storage, Workspace(world.storage, config), preemption)

    work = world.output / "ns/uid"

    def forget() -> None:
        for folder in ("checkpoints", "trained"):
            shutil.rmtree(work / folder)

    return SimpleNamespace(
        config=config, run=run, forget=forget, checkpoints=work / "checkpoints", world=world
    )


def test_a_smaller_micro_batch_goes_on_with_the_same_samples(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.world.train(small.config)
    whole = history(small.checkpoints)
    small.forget()

    with pytest.raises(Preempted):
        small.run(PreemptAfter(4))
    stopped = newest_checkpoint(small.checkpoints)
    assert stopped
    assert 2 <= step_of(stopped) <= 4
    monkeypatch.setenv(MICRO_BATCH_ENV, "1")
    report = small.world.train(small.config)
    assert report.training.micro_batch_size == 1
    for left, right in zip(history(small.checkpoints), whole, strict=True):
        assert left == pytest.approx(right, rel=1e-4)


def test_sigterm_while_a_checkpoint_is_saved_costs_no_other_step(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    preemption, commit = Preemption(), CheckpointFolder.commit

    def commit_as_sigterm_arrives(*arguments: Any) -> Any:
        preemption.requested = True
        return commit(*arguments)

    monkeypatch.setattr(CheckpointFolder, "commit", commit_as_sigterm_arrives)
    with pytest.raises(Preempted):
        small.run(preemption)
    newest = newest_checkpoint(small.checkpoints)
    assert newest
    assert step_of(newest) == 2


def test_a_disk_that_is_full_at_any_write_leaves_the_previous_checkpoint(small: Any) -> None:
    with full_disk("/staging-", full_at=10**9) as disk:
        small.world.train(small.config)
    whole = history(small.checkpoints)
    writes = disk.writes // 3
    assert writes >= 8
    small.forget()
    with pytest.raises(Preempted):
        small.run(PreemptAfter(3))
    kept = newest_checkpoint(small.checkpoints)
    assert kept
    before = {path: path.read_bytes() for path in small.checkpoints.rglob("*") if path.is_file()}

    chance = random.Random(writes)
    for full_at in {1, writes, *chance.sample(range(2, writes), 4)}:
        with full_disk("/staging-", full_at), pytest.raises(InfrastructureError) as caught:
            small.world.train(small.config)
        assert caught.value.reason == "StorageFull"
        assert f"{kept.name} is complete and kept" in caught.value.message
        assert "pvc://out/ns/uid/checkpoints" in caught.value.message
        assert newest_checkpoint(small.checkpoints) == kept
        after = {path: path.read_bytes() for path in small.checkpoints.rglob("*") if path.is_file()}
        lease = small.checkpoints / LEASE_FILE
        assert after | {lease: b""} == before | {lease: b""}

    small.world.train(small.config)
    assert history(small.checkpoints) == whole


def fail_to_write(folder: Path) -> None:
    (folder / "full").symlink_to("/dev/full")
    torch.save({"weights": torch.zeros(100_000)}, folder / "full")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EIO, "x"), False),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("NCCL error"), False),
    ],
)
def test_each_library_says_in_its_own_words_that_a_disk_is_full(
    tmp_path: Path, error: Exception, full: bool
) -> None:
    assert is_full_storage(error, tmp_path) is full
    outer = ValueError("could not save")
    outer.__cause__ = error
    assert is_full_storage(outer, tmp_path) is full


def test_torchs_writer_is_believed_only_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError) as caught:
        fail_to_write(tmp_path)
    assert not is_full_storage(caught.value, tmp_path)
    monkeypatch.setattr("tunesmith_trainer.train.disk_full._is_full", lambda folder: True)
    assert is_full_storage(caught.value, tmp_path)
