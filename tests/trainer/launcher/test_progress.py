"""Progress reports to the operator: content, rate limit, unreachable server."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from stages.stage_world import ProgressServer, RowBuilders, World

from tunesmith_contract.layout import CHECKPOINT_FILE_ENV
from tunesmith_contract.progress import (
    CHECKPOINT_DIGEST,
    CHECKPOINT_EVAL_LOSS,
    CHECKPOINT_STEP,
    CHECKPOINT_TIME,
    SERVER_URL_ENV,
    TOKEN_ENV,
    ProgressUpdate,
)
from tunesmith_contract.report import Checkpoint
from tunesmith_data.failures import Preempted
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_trainer.checkpoints.announcement import CheckpointAnnouncer
from tunesmith_trainer.preemption import InterruptibleProgress, Preemption


def test_updates_are_throttled_but_first_and_last_are_sent(server: ProgressServer, tmp_path: Path) -> None:
    url, received = server
    (tmp_path / "token").write_text("secret\n")
    times = iter([0.0, 1.0, 2.0, 6.0, 7.0])
    progress = ProgressReporter(
        {SERVER_URL_ENV: url, TOKEN_ENV: str(tmp_path / "token")}, clock=lambda: next(times)
    )
    for done in (0, 1, 2, 3, 4):
        progress.update(done, 4, phase="asking")
    updates = [ProgressUpdate.model_validate_json(body) for _, body in received]
    assert {token for token, _ in received} == {"Bearer secret"}
    assert [update.trainer_status.progress_percentage for update in updates] == [0, 75, 100]
    assert updates[1].trainer_status.estimated_remaining_seconds == 2
    metrics = {metric.name: metric.value for metric in updates[-1].trainer_status.metrics}
    assert metrics == {"current_step": "4", "total_steps": "4", "phase": "asking"}
    assert set(json.loads(received[0][1])) == {"trainerStatus"}


def test_what_was_done_before_says_nothing_of_the_time_left(server: ProgressServer) -> None:
    url, received = server
    times = iter([100.0, 110.0])
    progress = ProgressReporter({SERVER_URL_ENV: url}, clock=lambda: next(times))
    for done in (80, 90):
        progress.update(done, 100)
    told = [ProgressUpdate.model_validate_json(body).trainer_status for _, body in received]
    assert [each.estimated_remaining_seconds for each in told] == [None, 10]


def test_the_last_part_tells_the_time_left(server: ProgressServer) -> None:
    url, received = server
    steps = [(0.0, 0), (1000.0, 10), (1060.0, 20), (1120.0, 30), (1180.0, 40)]
    times = iter([at for at, _ in steps])
    progress = ProgressReporter({SERVER_URL_ENV: url}, clock=lambda: next(times))
    for _, done in steps:
        progress.update(done, 100)
    told = [ProgressUpdate.model_validate_json(body).trainer_status for _, body in received]
    seconds = [each.estimated_remaining_seconds for each in told]
    assert seconds[:2] == [None, 9000]
    assert seconds[-1] == 360, "10 in a minute, whatever the first ones took"


def test_training_speaks_the_same_protocol(
    server: ProgressServer,
    world: World,
    make: RowBuilders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, received = server
    (tmp_path / "token").write_text("secret")
    prepared = world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(20))))
    monkeypatch.setenv(SERVER_URL_ENV, url)
    monkeypatch.setenv(TOKEN_ENV, str(tmp_path / "token"))
    world.train(world.train_config(prepared, hyperparameters={"maxSteps": 3}))
    updates = [ProgressUpdate.model_validate_json(body) for _, body in received]
    assert updates[-1].trainer_status.progress_percentage == 100
    assert "loss" in {metric.name for metric in updates[-1].trainer_status.metrics}


def test_a_missing_server_or_token_fails_nothing(tmp_path: Path) -> None:
    ProgressReporter({}).update(1, 1)
    ProgressReporter({SERVER_URL_ENV: "http://127.0.0.1:9/x"}).update(1, 1)
    ProgressReporter({SERVER_URL_ENV: "http://127.0.0.1:9/x", TOKEN_ENV: str(tmp_path / "absent")}).update(
        1, 1
    )


def test_a_commit_is_told_to_the_operator_and_to_the_launcher(server: ProgressServer, tmp_path: Path) -> None:
    url, received = server
    file = tmp_path / "checkpoint.json"
    last = CheckpointAnnouncer(ProgressReporter({SERVER_URL_ENV: url}), {CHECKPOINT_FILE_ENV: str(file)})
    checkpoint = Checkpoint(
        step=4,
        uri="pvc://o/checkpoint-4",
        digest="sha256:" + "a" * 64,
        eval_loss=1.25,
        time=datetime.now(UTC),
    )
    last.announce(checkpoint, 4, 10)
    last.announce(checkpoint, 4, 10)
    assert Checkpoint.model_validate_json(file.read_bytes()) == checkpoint
    assert len(received) == 2, "no commit is left out for coming soon after another"
    update = ProgressUpdate.model_validate_json(received[0][1])
    metrics = {metric.name: metric.value for metric in update.trainer_status.metrics}
    assert metrics == {
        "current_step": "4",
        "total_steps": "10",
        CHECKPOINT_STEP: "4",
        CHECKPOINT_DIGEST: "a" * 64,
        CHECKPOINT_EVAL_LOSS: "1.25",
        CHECKPOINT_TIME: str(int(checkpoint.time.timestamp())),
    }


def test_a_stage_that_is_told_to_go_stops_where_it_says_how_far_it_is() -> None:
    preemption = Preemption()
    progress = InterruptibleProgress(preemption)
    progress.update(1, 2)
    preemption.requested = True
    with pytest.raises(Preempted):
        progress.update(2, 2)
