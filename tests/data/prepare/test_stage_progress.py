"""Progress of the prepare stage: never decreases, with a plausible time left."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.scripted_server import Reply, serve
from stages.stage_world import ProgressServer, RowBuilders, World

from tunesmith_contract.progress import PART, SERVER_URL_ENV, PreparePart, ProgressUpdate, TrainerStatus
from tunesmith_data.pod.progress import SECONDS_BETWEEN_UPDATES, ProgressReporter
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.prepare import prepare
from tunesmith_data.prepare.stage_progress import WHOLE, PrepareProgress

ROWS = 200_000
BATCH = 1_000

PARTS = list(PreparePart)[1:]

#: Seconds of each part as they were measured, and of those the ones after the last row.
MEASURED = {"reading": (26.5, 0.0), "cleaning": (15.9, 0.5), "judging": (23.7, 8.0), "writing": (3.0, 0.0)}


class Heard:
    """Takes the place of what pushes, and keeps all it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def update(self, done: int, total: int, **_: object) -> None:
        """Keep the share."""
        self.told.append((done, total))


words = st.tuples(st.sampled_from(PreparePart), st.integers(0, 10**7), st.integers(0, 10**7))


@given(st.lists(words))
def test_the_share_never_goes_back_and_is_whole_at_the_end_alone(
    told: list[tuple[PreparePart, int, int]],
) -> None:
    heard = Heard()
    progress = PrepareProgress(heard, asks_teacher=True)
    for part, rows, total in told:
        progress.for_part(part)(rows, total)
    shares = [done for done, _ in heard.told]
    assert shares == sorted(shares)
    assert all(0 <= round(100 * share / WHOLE) < 100 for share in shares)
    progress.finish()
    assert heard.told[-1] == (WHOLE, WHOLE)


def test_a_total_that_grows_holds_the_share_where_it_is() -> None:
    heard = Heard()
    read = PrepareProgress(heard, asks_teacher=False).for_part(PreparePart.READING)
    for rows, total in ((100, 1000), (200, 4000), (300, 4000), (600, 4000)):
        read(rows, total)
    first, second, third, last = (done for done, _ in heard.told)
    assert first == second == third < last


class Told(ProgressReporter):
    """Progress by a clock that a test moves; what would be pushed is kept with its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pushed: list[tuple[float, int, float | None]] = []
        super().__init__({SERVER_URL_ENV: "http://unused"}, clock=lambda: self.now)

    def _push(self, url: str, done: int, total: int, remaining: float | None, metrics: Any) -> None:
        self.pushed.append((self.now, done, remaining))


def run_whole(told: Told, pace: float) -> None:
    """A run that takes so many times as long as was measured."""
    progress = PrepareProgress(told, asks_teacher=False)
    told.now = 1000.0  # the model was looked at before
    for part in PARTS:
        seconds, after = MEASURED[part]
        for rows in range(BATCH, ROWS + 1, BATCH):
            told.now += pace * (seconds - after) * BATCH / ROWS
            progress.for_part(part)(rows, ROWS)
        told.now += pace * after
    progress.finish()


@pytest.mark.parametrize("pace", [1.0, 7.0])
def test_the_time_left_is_about_right_all_the_way(pace: float) -> None:
    told = Told()
    run_whole(told, pace)
    end = told.pushed[-1][0]
    left = [(end - now, remaining) for now, _, remaining in told.pushed if remaining is not None]
    assert len(left) > 12
    assert all(remaining == pytest.approx(true, rel=0.1, abs=2 * pace) for true, remaining in left)


def test_it_is_told_seldom_but_of_each_part_at_once() -> None:
    told = Told()
    run_whole(told, 1)
    took = told.pushed[-1][0] - told.pushed[0][0]
    assert len(told.pushed) <= took / SECONDS_BETWEEN_UPDATES + len(PARTS) + 1
    told = Told()
    run_whole(told, 0.01)
    assert len(told.pushed) == len(PARTS) + 1


def test_a_teachers_earlier_answers_do_not_count_as_speed() -> None:
    told = Told()
    asked = PrepareProgress(told, asks_teacher=True).for_part(PreparePart.ASKING)
    for answers, seconds in ((900, 0.0), (910, 10.0), (920, 10.0)):
        told.now += seconds
        asked(answers, 1000)
    (_, first, unknown), *_, (_, _, remaining) = told.pushed
    assert first > 0.85 * WHOLE
    assert unknown is None
    assert remaining == pytest.approx(80, rel=0.2)


def shown(received: list[tuple[str | None, bytes]]) -> Iterator[tuple[int | None, str | None]]:
    """Percentage and part of each update."""
    for _, body in received:
        status: TrainerStatus = ProgressUpdate.model_validate_json(body).trainer_status
        yield status.progress_percentage, {each.name: each.value for each in status.metrics}.get(PART)


def run_stage(world: World, config: Any, url: str) -> None:
    """The stage, whose every word is pushed."""
    impatient = ProgressReporter({SERVER_URL_ENV: url}, clock=count(step=SECONDS_BETWEEN_UPDATES).__next__)
    prepare(config, world.storage, Workspace(world.storage, config), impatient)


def test_the_whole_stage_goes_up_to_100_part_by_part(
    server: ProgressServer, world: World, make: RowBuilders
) -> None:
    url, received = server
    run_stage(world, world.prepare_config(world.write_rows("train.jsonl", make.rows(3000))), url)
    percentages, parts = zip(*shown(received), strict=True)
    assert list(percentages) == sorted(percentages)
    assert percentages[-2:] == (99, 100)
    assert len(set(percentages)) > 8
    assert list(dict.fromkeys(parts)) == [*PARTS, None]


def test_a_teachers_answers_are_the_most_of_it(server: ProgressServer, world: World) -> None:
    url, received = server
    said = Reply(body={"choices": [{"message": {"content": "aye"}, "finish_reason": "stop"}]})
    with serve(lambda request: said) as teacher:
        endpoint = {"endpoint": {"url": f"{teacher.url}/v1", "model": "large", "maxTokens": 64}}
        method = {"distillation": {"teacher": endpoint, "maxLength": 128, "maxCompletionLength": 16}}
        rows = [{"prompt": [{"role": "user", "content": f"turn {number}"}]} for number in range(40)]
        config = world.prepare_config(world.write_rows("prompts.jsonl", rows), method=method)
        run_stage(world, config, url)
    percentages, parts = zip(*shown(received), strict=True)
    assert list(percentages) == sorted(percentages)
    assert (percentages[parts.index("asking")], percentages[parts.index("reading")]) == (0, 99)
    assert list(dict.fromkeys(parts)) == [*PreparePart, None]
