"""Progress reaches the operator, seldom, and its absence fails nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith_contract.progress import SERVER_URL_ENV, TOKEN_ENV, ProgressUpdate
from tunesmith_trainer.progress import Progress


def test_updates_are_throttled_but_first_and_last_are_sent(server: Any, tmp_path: Path) -> None:
    url, received = server
    (tmp_path / "token").write_text("secret\n")
    times = iter([0.0, 0.0, 1.0, 2.0, 6.0, 7.0])
    progress = Progress({SERVER_URL_ENV: url, TOKEN_ENV: str(tmp_path / "token")}, clock=lambda: next(times))
    for done in (0, 1, 2, 3, 4):
        progress.update(done, 4, phase="asking")
    updates = [ProgressUpdate.model_validate_json(body) for _, body in received]
    assert {token for token, _ in received} == {"Bearer secret"}
    assert [update.trainer_status.progress_percentage for update in updates] == [0, 75, 100]
    assert updates[1].trainer_status.estimated_remaining_seconds == 2
    metrics = {metric.name: metric.value for metric in updates[-1].trainer_status.metrics}
    assert metrics == {"current_step": "4", "total_steps": "4", "phase": "asking"}
    assert set(json.loads(received[0][1])) == {"trainerStatus"}


def test_training_speaks_the_same_protocol(
    server: Any, world: Any, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    Progress({}).update(1, 1)
    Progress({SERVER_URL_ENV: "http://127.0.0.1:9/x"}).update(1, 1)
    Progress({SERVER_URL_ENV: "http://127.0.0.1:9/x", TOKEN_ENV: str(tmp_path / "absent")}).update(1, 1)
