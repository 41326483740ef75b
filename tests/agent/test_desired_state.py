"""Desired state of an agent: never back to what was taken back, no share raised by a file that nobody confirmed."""

import asyncio
from pathlib import Path

import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_agent.control.desired_state import DesiredStore, FileWatcher, Source, restrain
from tunesmith_contract.agent import DESIRED_FILE, STATE_FILE, DesiredAlias, DesiredState, OtherModel, Version

VERSIONS = [Version(version=n, digest="sha256:" + f"{n}" * 64, uri=f"pvc://c/{n}") for n in (1, 2, 3)]
ONE, TWO, THREE = VERSIONS
OPTIONAL = st.sampled_from([None, *VERSIONS])
ALIASES = st.builds(
    DesiredAlias,
    name=st.just("a"), stable=OPTIONAL, candidate=OPTIONAL, previous=OPTIONAL, weight=st.integers(0, 100),
)  # fmt: skip


def state(generation: int, **alias: object) -> DesiredState:
    return DesiredState(generation=generation, aliases=(DesiredAlias(name="a", **alias),))


def make_store(folder: Path, base_model_uri: str = "") -> DesiredStore:
    store = DesiredStore(folder / "kept" / STATE_FILE, lambda: None, base_model_uri)
    store.load()
    return store


def shares(alias: DesiredAlias | None) -> dict[str, int]:
    """Percent of the requests by digest."""
    if alias is None:
        return {}
    given = {alias.stable.digest: 100 - alias.weight} if alias.stable else {}
    if alias.candidate and alias.weight:
        given[alias.candidate.digest] = given.get(alias.candidate.digest, 0) + alias.weight
    return given


def test_a_restart_starts_from_the_newest_accepted_state(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert store.offer(state(8, stable=ONE, rejected=(TWO.digest,)).to_json(), Source.OPERATOR)
    again = make_store(tmp_path)
    assert again.current == store.current and again.confirmed_generation == 8
    old = state(5, stable=ONE, candidate=TWO, weight=100)
    assert not again.offer(old.to_json(), Source.FILE)


def test_a_pod_on_another_base_model_serves_what_is_for_it_also_after_a_restart(tmp_path: Path) -> None:
    other = OtherModel(base_model="hf://org/next", aliases=(DesiredAlias(name="a", stable=TWO),))
    sent = state(5, stable=ONE).model_copy(update={"other": other})
    for folder, uri, expected in (("new", "hf://org/next", TWO), ("old", "hf://org/model", ONE)):
        store = make_store(tmp_path / folder, uri)
        assert store.offer(sent.to_json(), Source.OPERATOR)
        again = make_store(tmp_path / folder, uri)
        for each in (store, again):
            assert each.current == state(5, stable=expected)
            assert each.applied_digest == sent.digest(), "the operator takes it for another state"


async def test_what_was_rolled_back_does_not_answer_after_a_restart(
    engine: FakeEngine, storage: Storage
) -> None:
    good, bad = storage.commit(), storage.commit(-0.5)
    mounted = state(5, stable=good, candidate=bad, weight=100)
    (storage.root / DESIRED_FILE).write_text(mounted.to_json())
    disk = storage.root / "state"
    async with running_agent(engine, storage.root, state_dir=disk) as running:
        running.generation = 7
        running.want(DesiredAlias(name="a", stable=good, rejected=(bad.digest,)))
        await running.active(good)
    async with running_agent(engine, storage.root, state_dir=disk) as running:
        await running.active(good)
        assert running.state(bad) is None
        assert running.agent.store.confirmed_generation == 8


def test_a_new_pod_raises_nothing_by_itself(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    mounted = state(5, stable=ONE, candidate=TWO, weight=40)
    assert store.offer(mounted.to_json(), Source.FILE)
    assert store.current == state(5, stable=ONE, candidate=TWO, weight=0)
    assert store.confirmed_generation == 0, "the operator sees that it has to confirm"
    assert store.offer(mounted.to_json(), Source.OPERATOR)
    assert (store.current, store.confirmed_generation) == (mounted, 5)
    assert not store.offer(mounted.to_json(), Source.OPERATOR)


def test_a_promotion_in_a_file_waits_for_its_confirmation(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.offer(state(5, stable=ONE, candidate=TWO, weight=40).to_json(), Source.OPERATOR)
    store.offer(state(6, stable=TWO, previous=ONE).to_json(), Source.FILE)
    assert store.current is not None
    assert shares(store.current.aliases[0]) == {ONE.digest: 60, TWO.digest: 40}


@pytest.mark.parametrize(
    "back",
    [{"stable": ONE}, {"stable": ONE, "candidate": TWO, "weight": 10}, {"stable": ONE, "candidate": THREE}],
)
def test_a_file_takes_requests_away_at_once(tmp_path: Path, back: dict[str, object]) -> None:
    store = make_store(tmp_path)
    store.offer(state(5, stable=ONE, candidate=TWO, weight=40).to_json(), Source.OPERATOR)
    assert store.offer(state(6, **back).to_json(), Source.FILE)
    assert store.current == state(6, **back)


def test_a_way_back_in_a_file_is_taken_at_once(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.offer(state(5, stable=TWO, previous=ONE).to_json(), Source.OPERATOR)
    store.offer(state(6, stable=ONE, rejected=(TWO.digest,)).to_json(), Source.FILE)
    assert store.current is not None and shares(store.current.aliases[0]) == {ONE.digest: 100}


@given(current=ALIASES, file=ALIASES)
def test_an_unconfirmed_file_raises_the_share_of_the_known_versions_alone(
    current: DesiredAlias, file: DesiredAlias
) -> None:
    """Only the version that was stable, or the one before it, may get more than it has."""
    before = DesiredState(generation=1, aliases=(current,))
    (after,) = restrain(DesiredState(generation=2, aliases=(file,)), before).aliases
    if current.stable is None:
        assert after.weight == 0
        return
    known = {version.digest for version in (current.stable, current.previous) if version}
    given = shares(current)
    for digest, share in shares(after).items():
        assert digest in known or share <= given.get(digest, 0)


def test_a_kept_state_that_can_not_be_read_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / STATE_FILE).write_text("half a st")
    assert make_store(tmp_path).current is None
    assert "desired state is invalid" in caplog.text


async def test_the_whole_state_is_read_before_that_of_the_first_release(
    agent: Running, storage: Storage
) -> None:
    first, second = storage.commit(), storage.commit(-0.5)
    whole = state(3, stable=first, previous=second)
    for name, content in ((STATE_FILE, whole), (DESIRED_FILE, whole.for_features(()))):
        (storage.root / name).write_text(content.to_json())
    await agent.active(first, second)


async def test_files_that_are_exchanged_between_two_reads_are_taken_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def write(desired: DesiredState) -> None:
        (tmp_path / DESIRED_FILE).write_text(desired.for_features(()).to_json())
        (tmp_path / STATE_FILE).write_text(desired.to_json())

    def read_and_exchange(path: Path) -> bytes:
        data = read(path)
        write(state(2, stable=TWO, previous=ONE))
        return data

    write(state(1, stable=ONE))
    monkeypatch.setattr(Path, "read_bytes", read_and_exchange)
    changed = asyncio.Event()
    store = DesiredStore(tmp_path / "kept", changed.set)
    watching = asyncio.create_task(FileWatcher(tmp_path, store).run())
    async with asyncio.timeout(10):
        await changed.wait()
    watching.cancel()
    assert store.current and store.current.aliases[0].previous == ONE


async def test_an_operator_of_the_first_release_takes_over(agent: Running, storage: Storage) -> None:
    """It leaves the whole state of its successor as it is, and writes a higher generation into its own file."""
    first, second = storage.commit(), storage.commit(-0.5)
    (storage.root / STATE_FILE).write_text(state(3, stable=first, candidate=second).to_json())
    await agent.active(first)
    (storage.root / DESIRED_FILE).write_text(state(4, stable=first).for_features(()).to_json())
    await agent.until(lambda: agent.state(second) is None)
