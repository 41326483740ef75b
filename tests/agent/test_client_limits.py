"""Entries of clients, buckets, periods, reservations and accounts, by a clock of the test's own."""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from custom_resources.manifest_cases import SERVING_EXAMPLES
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_agent.access.buckets import Bucket
from tunesmith_agent.access.clients import Charge, Client, Shared
from tunesmith_agent.access.entries import Entries, Entry, Period, digest_of, parse_entries, read_entries
from tunesmith_agent.access.ledger import Ledger
from tunesmith_agent.access.periods import Calendar, seconds_to_end
from tunesmith_agent.access.pod_shares import PodShares, divide
from tunesmith_agent.access.reservation import reserve
from tunesmith_agent.http.messages import Refusal
from tunesmith_agent.metrics import Usage
from tunesmith_contract.agent import (
    MAX_CLIENTS,
    CountedTokens,
    DesiredAlias,
    DesiredState,
    Peer,
    UsageOfOthers,
)

KEY = "sk-0123456789abcdef"
CHAT = b"/v1/chat/completions"
NEW_YEAR = 1893456000.0  # 2030-01-01T00:00:00Z


@dataclass
class Clock:
    """Both clocks of the agent, and the operator's connection."""

    time: float = 1000.0
    wall: float = NEW_YEAR + 3600
    connected: bool = True
    clients: list[Client] = field(default_factory=list)

    def client(self, folder: Path, pods: int = 1, **entry: Any) -> Client:
        ledger = Ledger(folder / "usage.json")
        shared = Shared(lambda: self.time, lambda: self.wall, lambda: self.connected, ledger, PodShares(pods))
        return Client("ada", Entry.model_validate_json(json.dumps({"key": KEY, **entry})), shared)

    def pass_seconds(self, seconds: float) -> None:
        self.time += seconds
        self.wall += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def parse(**values: Any) -> Entries:
    return parse_entries(
        {
            name: value if isinstance(value, bytes) else json.dumps(value).encode()
            for name, value in values.items()
        }
    )


def admitted(client: Client, body: dict[str, Any] | None = None, size: int = 29) -> Charge:
    charge = client.admit(CHAT, {"max_tokens": 90} if body is None else body, size)
    assert isinstance(charge, Charge), charge
    return charge


def refused(client: Client, body: dict[str, Any] | None = None, size: int = 29) -> Refusal:
    refusal = client.admit(CHAT, {"max_tokens": 90} if body is None else body, size)
    assert isinstance(refusal, Refusal)
    return refusal


def end(charge: Charge, prompt: int, answer: int) -> None:
    """The engine answers with these counts."""
    charge.settle(Usage(prompt, answer, 0), answered=True)


# -- entries


def test_entries_name_clients_by_their_keys() -> None:
    entries = parse(
        ada={"key": KEY, "adapters": ["expenses"], "budget": {"tokens": 5, "period": "Month"}},
        ben={"keys": ["b" * 16, "c" * 16], "requestsPerMinute": 60},
    )
    assert not entries.faults
    assert entries.owners[digest_of(b"c" * 16)] == "ben" and entries.owners[digest_of(KEY.encode())] == "ada"
    budget = entries.entries["ada"].budget
    assert budget is not None and (budget.tokens, budget.period) == (5, Period.MONTH)


SECRET = "sk-secret-0123456789"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (SECRET.encode(), "no JSON object"),
        (b"\xff\xfe" + SECRET.encode(), "no JSON object"),
        (SECRET, "no JSON object"),
        ([SECRET], "no JSON object"),
        ({SECRET: {}}, "unknown member"),
        ({"key": KEY, SECRET: 1}, "unknown member"),
        ({}, 'either "key"'),
        ({"key": SECRET, "keys": [KEY]}, 'either "key"'),
        ({"key": f"{SECRET} \n"}, "key: write 16 to 256"),
        ({"key": SECRET[:12]}, "key: write 16 to 256"),
        ({"keys": [SECRET + "ä"]}, "keys: write 16 to 256"),
        ({"key": KEY, "requestsPerMinute": SECRET}, "requestsPerMinute"),
        ({"key": KEY, "requestsPerMinute": True}, "requestsPerMinute"),
        ({"key": KEY, "tokensPerMinute": 0}, "tokensPerMinute"),
        ({"key": KEY, "tokensPerMinute": 1.5}, "tokensPerMinute"),
        ({"key": KEY, "budget": {"tokens": 1}}, "budget.period"),
        ({"key": KEY, "budget": {"tokens": 1, "period": SECRET}}, "budget.period"),
        ({"key": KEY, "budget": {"tokens": 1, "period": "Day", SECRET: 2}}, "unknown member"),
        ({"key": KEY, "adapters": SECRET}, "adapters"),
    ],
)
def test_a_broken_entry_concerns_its_client_alone_and_is_never_quoted(value: Any, words: str) -> None:
    entries = parse(broken=value, whole={"key": "w" * 16})
    assert list(entries.entries) == ["whole"]
    message = entries.faults["broken"]
    assert words in message
    assert not any(SECRET[at : at + 6] in message for at in range(len(SECRET) - 6))


def test_a_folder_that_is_not_there_has_no_entries_and_one_that_is_unreadable_says_nothing(
    tmp_path: Path,
) -> None:
    assert read_entries(tmp_path / "absent") == Entries({}, {}, {})
    (tmp_path / "keys").write_text("")
    with pytest.raises(NotADirectoryError):
        read_entries(tmp_path / "keys")


def test_two_clients_with_one_key_are_told_apart_by_their_names() -> None:
    entries = parse(ben={"keys": [KEY, "b" * 16]}, ada={"key": KEY})
    assert list(entries.entries) == ["ada"]
    assert "client ada" in entries.faults["ben"] and KEY not in entries.faults["ben"]
    assert digest_of(b"b" * 16) not in entries.owners


def test_more_clients_than_are_reported_are_refused() -> None:
    values = {f"c{number:04}": {"key": f"{number:016}"} for number in range(MAX_CLIENTS + 1)}
    assert list(parse(**values).faults) == [f"c{MAX_CLIENTS:04}"]


def test_the_example_is_one() -> None:
    secret = yaml.safe_load((SERVING_EXAMPLES / "client-keys-secret.yaml").read_text())
    entries = parse_entries({name: value.encode() for name, value in secret["stringData"].items()})
    assert list(entries.entries) == ["accounting", "nightly-batch"] and not entries.faults
    deployment = yaml.safe_load((SERVING_EXAMPLES / "client-keys.yaml").read_text())
    assert deployment["spec"]["access"]["keysSecretRef"]["name"] == secret["metadata"]["name"]


# -- buckets


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 1500), st.integers(0, 1500)), max_size=60),
)
def test_a_bucket_never_gives_more_than_fills_in(limit: int, steps: list[tuple[float, int, int]]) -> None:
    """Requests of any size, each corrected some steps later: between any two times, beside one that is too large."""
    now, bucket = 0.0, Bucket(limit, 0.0)
    reserved: list[tuple[int, int]] = []
    used: list[tuple[float, int]] = []
    for seconds, amount, actual in steps:
        now += seconds
        bucket.fill(now)
        if len(reserved) > 3:
            taken, spent = reserved.pop(0)
            bucket.give(taken - spent)
        if not bucket.wait(amount):
            bucket.take(amount)
            reserved.append((amount, min(actual, amount)))
            used.append((now, min(actual, amount)))
    for index, (since, _) in enumerate(used):
        for last in range(index, len(used)):
            total = sum(amount for _, amount in used[index : last + 1])
            largest = max(amount for _, amount in used[index : last + 1])
            filled = limit * (1 + (used[last][0] - since) / 60)
            assert total <= filled + max(0, largest - limit) + 1e-3


def test_a_bucket_says_when_to_try_again() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(60)
    assert bucket.wait(30) == pytest.approx(30)
    bucket.fill(30.0)
    assert bucket.wait(30) == 0
    bucket.fill(60.0)
    bucket.take(200)
    assert bucket.level == pytest.approx(-140)
    assert bucket.wait(1) == pytest.approx(141)


def test_another_share_keeps_debts_and_parts() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(15)
    bucket.resize(20)
    assert bucket.level == pytest.approx(15)
    bucket.resize(60)
    assert bucket.level == pytest.approx(45)
    bucket.take(75)
    bucket.resize(6)
    assert bucket.wait(1) == pytest.approx(310)
    bucket.fill(310.0)
    bucket.resize(600)
    assert bucket.level == pytest.approx(100)


# -- limits


def test_requests_per_minute_are_shared_by_pods(clock: Clock, tmp_path: Path) -> None:
    client = clock.client(tmp_path, pods=3, requestsPerMinute=6)
    end(admitted(client), 1, 1)
    end(admitted(client), 1, 1)
    refusal = refused(client)
    assert (refusal.status, refusal.kind, refusal.code) == (429, "requests", "rate_limit_exceeded")
    assert b"retry-after: 30\r\n" in refusal.headers
    clock.pass_seconds(30)
    headers = admitted(client).headers
    assert b"x-ratelimit-limit-requests: 2\r\nx-ratelimit-remaining-requests: 0\r\n" in headers
    assert b"x-ratelimit-reset-requests: 60s\r\n" in headers


def divided(homes: dict[str, set[str]], pods: int, aliases: str = "ab") -> list[PodShares]:
    """Division among these pods, as each of them sees it; homes are by pod."""
    state = DesiredState(
        generation=1,
        aliases=tuple(DesiredAlias(name=name) for name in aliases),
        peers=tuple(
            Peer(name=name, host="127.0.0.1", port=1, homes=tuple(sorted(names)))
            for name, names in homes.items()
        ),
        pods=pods,
    )
    return [divide(state, f"p{number}", 16) for number in range(pods)]


@given(
    homes=st.dictionaries(st.sampled_from(["p0", "p1", "p2", "p3"]), st.sets(st.sampled_from("ab"))),
    adapters=st.none() | st.frozensets(st.sampled_from(["a", "b", "base", "unknown"])),
    pods=st.integers(4, 9),
)
def test_shares_of_all_pods_are_the_limit(
    homes: dict[str, set[str]], adapters: frozenset[str] | None, pods: int
) -> None:
    assert sum(each.weight(adapters) for each in divided(homes, pods)) == pytest.approx(pods)


def test_home_pods_have_most_of_a_limit() -> None:
    homes = {"p0": {"a"}, "p1": {"b"}, "p2": {"b"}}

    def shares(*adapters: str) -> list[float]:
        return [each.weight(adapters) / 8 for each in divided(homes, 8)]

    other = 0.25 / 8
    assert shares("a", "of another deployment") == pytest.approx([0.75 + other, *[other] * 7])
    assert shares("b")[:3] == pytest.approx([other, 0.375 + other, 0.375 + other])
    assert shares("a", "b")[:4] == pytest.approx([*[0.25 + other] * 3, other])
    assert shares("a", "base") == shares("unknown") == [1 / 8] * 8
    assert [each.weight(None) for each in divided(homes, 8)] == [1] * 8
    # Nothing is placed while all fit.
    assert [each.weight(["a"]) for each in divided({"p0": set(), "p1": set()}, 8)] == [1] * 8


def test_homes_that_move_let_nobody_take_a_limit_twice(clock: Clock, tmp_path: Path) -> None:
    clients = [clock.client(tmp_path, pods=8, requestsPerMinute=800, adapters=["a"]) for _ in range(8)]

    def place(home: str) -> None:
        for client, shares in zip(clients, divided({home: {"a"}, "p7": set()}, 8, "a"), strict=True):
            client._shared.shares = shares
            client.share_limits()

    def take_all() -> int:
        found = 0
        for client in clients:
            while isinstance(client.admit(CHAT, {}, 10), Charge):
                found += 1
        return found

    place("p0")
    taken = 0
    for minute in range(3):
        for home in ("p1", "p2", "p0"):
            place(home)
            taken += take_all()
            clock.pass_seconds(20)
        assert taken <= 800 * (minute + 2)
    place("p0")
    clock.pass_seconds(60)
    assert take_all() == 800


def test_a_share_below_one_request_admits_one_now_and_then(clock: Clock, tmp_path: Path) -> None:
    client = clock.client(tmp_path, pods=10, requestsPerMinute=5)
    admitted(client)
    assert b"retry-after: 120\r\n" in refused(client).headers
    clock.pass_seconds(120)
    admitted(client)


def test_tokens_are_reserved_before_a_request_and_corrected_after_it(clock: Clock, tmp_path: Path) -> None:
    client = clock.client(tmp_path, tokensPerMinute=250)
    charges = [admitted(client), admitted(client)]
    refusal = refused(client)
    assert (refusal.kind, refusal.code) == ("tokens", "rate_limit_exceeded")
    assert b"retry-after: 12\r\n" in refusal.headers
    end(charges[0], 5, 5)
    end(admitted(client), 10, 90)
    assert client.counts.answer_tokens == 95
    refused(client)


def test_what_a_request_takes_beyond_its_reservation_is_owed(clock: Clock, tmp_path: Path) -> None:
    client = clock.client(tmp_path, tokensPerMinute=120)
    end(admitted(client), 500, 100)
    assert b"retry-after: 290\r\n" in refused(client).headers


def test_a_request_larger_than_the_limit_never_passes(clock: Clock, tmp_path: Path) -> None:
    client = clock.client(tmp_path, tokensPerMinute=1000)
    refusal = refused(client, {"max_tokens": 1000})
    assert "your limit is 1000" in refusal.message and b"x-should-retry: false" in refusal.headers


def test_a_request_without_a_limit_gets_one(clock: Clock, tmp_path: Path) -> None:
    client = clock.client(tmp_path, tokensPerMinute=100_000)
    body: dict[str, Any] = {}
    admitted(client, body)
    assert body == {"max_tokens": 4096}
    small = clock.client(tmp_path, tokensPerMinute=1000, defaultMaxTokens=600)
    admitted(small, body := {})
    assert body == {"max_tokens": 500}
    free = clock.client(tmp_path)
    admitted(free, body := {})
    assert body == {}


@pytest.mark.parametrize(
    ("path", "body", "answer", "default"),
    [
        (CHAT, {"max_completion_tokens": 7, "max_tokens": 9}, 7, None),
        (CHAT, {"max_tokens": 9, "n": 4}, 36, None),
        (CHAT, {"max_tokens": None}, 50, ("max_tokens", 50)),
        (CHAT, {"max_tokens": "many"}, 50, None),
        (CHAT, {"n": 3}, 150, ("max_tokens", 50)),
        (b"/v1/completions", {"prompt": "x"}, 16, None),
        (b"/v1/completions", {"prompt": ["x", "y"], "max_tokens": 5}, 10, None),
        (b"/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 5}, 5, None),
        (b"/v1/completions", {"prompt": [[1], [2]]}, 32, None),
        (b"/v1/completions", {"prompt": "x", "max_tokens": None}, 50, ("max_tokens", 50)),
        (b"/v1/responses", {}, 50, ("max_output_tokens", 50)),
        (b"/v1/embeddings", {"input": "x"}, 0, None),
    ],
)
def test_what_is_reserved(path: bytes, body: dict[str, Any], answer: int, default: Any) -> None:
    reservation = reserve(path, body, 299, 50)
    assert (reservation.prompt, reservation.answer, reservation.default) == (100, answer, default)


@pytest.mark.parametrize("seed", range(20))
def test_limits_hold_whatever_is_asked_at_the_same_time(clock: Clock, tmp_path: Path, seed: int) -> None:
    """Many requests at a time, of which some break off: between any two times no more than the limits allow."""
    choice = random.Random(seed)
    client = clock.client(tmp_path, requestsPerMinute=30, tokensPerMinute=2000)
    running: list[tuple[Charge, int]] = []
    used: list[tuple[float, int]] = []
    for _ in range(400):
        clock.pass_seconds(choice.expovariate(2))
        answer = choice.randint(1, 300)
        charge = client.admit(CHAT, {"max_tokens": answer}, choice.randint(3, 600))
        if isinstance(charge, Charge):
            running.append((charge, answer))
            used.append((clock.time, answer))
        while running and choice.random() < 0.4:
            ended, length = running.pop(choice.randrange(len(running)))
            if choice.random() < 0.2:
                ended.settle(None, answered=False, left=True)
            else:
                end(ended, 1, length - 1)
    for index, (since, _) in enumerate(used):
        for last in range(index, len(used)):
            minutes = 1 + (used[last][0] - since) / 60
            assert last - index + 1 <= 30 * minutes + 1e-3
            assert sum(amount for _, amount in used[index : last + 1]) <= 2000 * minutes + 1e-3
    assert len(used) > 50


# -- budgets


def test_a_budget_ends_and_begins_with_its_period(clock: Clock, tmp_path: Path) -> None:
    client = clock.client(tmp_path, budget={"tokens": 250, "period": "Day"})
    client._shared.ledger.learn(others(0))
    end(admitted(client), 60, 90)
    refusal = refused(client, {"max_tokens": 95})
    assert (refusal.status, refusal.kind, refusal.code) == (429, "insufficient_quota", "insufficient_quota")
    assert "250 tokens per day (UTC). 150 are used" in refusal.message
    assert b"retry-after: 82800\r\n" in refusal.headers and b"x-should-retry: false" in refusal.headers
    clock.pass_seconds(82_800)
    admitted(client, {"max_tokens": 95})


def others(tokens: int, period: str = "2030-01-01") -> UsageOfOthers:
    return UsageOfOthers(counted_by_others=(CountedTokens(client="ada", period=period, tokens=tokens),))


def test_requests_in_progress_count_against_a_budget(clock: Clock, tmp_path: Path) -> None:
    client = clock.client(tmp_path, budget={"tokens": 250, "period": "Day"})
    client._shared.ledger.learn(others(0))
    charges = [admitted(client), admitted(client)]
    assert "0 are used and 200 reserved" in refused(client).message
    for charge in charges:
        charge.settle(None, answered=False)
    admitted(client)


def test_a_budget_knows_what_others_have_used(clock: Clock, tmp_path: Path) -> None:
    client = clock.client(tmp_path, pods=2, budget={"tokens": 1000, "period": "Day"})
    client._shared.ledger.learn(others(850))
    end(admitted(client), 50, 50)
    refused(client)
    client._shared.ledger.learn(others(500))
    admitted(client)


def test_without_the_operator_a_pod_has_a_share_of_what_was_left(clock: Clock, tmp_path: Path) -> None:
    client = clock.client(tmp_path, pods=4, budget={"tokens": 1000, "period": "Day"})
    end(admitted(client), 50, 50)
    end(admitted(client), 50, 50)
    refused(client)
    client._shared.ledger.learn(others(0))
    end(admitted(client), 50, 50)
    clock.connected = False
    end(admitted(client), 50, 50)
    refused(client)
    clock.connected = True
    admitted(client)


def test_accounts_outlive_the_agent(clock: Clock, tmp_path: Path) -> None:
    client = clock.client(tmp_path, budget={"tokens": 300, "period": "Month"})
    ledger = client._shared.ledger
    ledger.learn(others(50, "2030-01"))
    end(admitted(client), 60, 90)
    ledger.keep()
    again = clock.client(tmp_path, budget={"tokens": 300, "period": "Month"})
    again._shared.ledger.load()
    assert again._shared.ledger.run == ledger.run and again.used() == 200
    refused(again, {"max_tokens": 95})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"run": "x"}',
        '{"run": 1, "accounts": {"a": {"b": [1, 2, 3, 4]}}}',
        '{"run": "x", "accounts": {"ada": {"2030-01": ["many", null, 0]}}}',
    ],
)
def test_a_broken_file_of_accounts_is_begun_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "usage.json").write_text(text)
    ledger = Ledger(tmp_path / "usage.json")
    run = ledger.run
    ledger.load()
    assert ledger.run == run and ledger.account("ada", "2030-01").used == 0


def test_old_periods_are_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "usage.json")
    for day in range(1, 6):
        ledger.account("ada", f"2030-01-{day:02}").own = day
    ledger.account("ada", "2030-01-04").own += 1
    assert {period: account.own for period, account in ledger.accounts("ada").items()} == {
        "2030-01-04": 5,
        "2030-01-05": 5,
    }


def test_periods_are_days_and_months_of_utc() -> None:
    calendar = Calendar()
    assert calendar.name(Period.DAY, NEW_YEAR - 1) == "2029-12-31"
    assert calendar.name(Period.MONTH, NEW_YEAR - 1) == "2029-12"
    assert calendar.name(Period.DAY, NEW_YEAR) == "2030-01-01"
    assert calendar.name(Period.MONTH, NEW_YEAR) == "2030-01"
    assert seconds_to_end(Period.MONTH, NEW_YEAR) == 31 * 86_400
    assert seconds_to_end(Period.DAY, NEW_YEAR + 5) == 86_395


# -- without a count


EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'


def test_a_stream_that_breaks_off_counts_its_events(clock: Clock, tmp_path: Path) -> None:
    client = clock.client(tmp_path, tokensPerMinute=1000)
    charge = admitted(client, {"max_tokens": 500, "stream": True}, 29)
    charge.count_events(EVENT * 20)
    charge.settle(None, answered=False, left=True)
    assert (client.counts.prompt_tokens, client.counts.answer_tokens) == (10, 20)
    admitted(client, {"max_tokens": 900})


def test_events_are_counted_wherever_a_stream_is_cut(clock: Clock, tmp_path: Path) -> None:
    for size in range(1, len(EVENT) + 1):
        client = clock.client(tmp_path, tokensPerMinute=1000)
        charge = admitted(client, {"max_tokens": 500, "stream": True}, 29)
        stream = EVENT * 3
        for begin in range(0, len(stream), size):
            charge.count_events(stream[begin : begin + size])
        charge.settle(None, answered=False, left=True)
        assert client.counts.answer_tokens == 3, size


@pytest.mark.parametrize(
    ("limits", "events", "answer"),
    [({"tokensPerMinute": 1000}, 3, 150), ({"tokensPerMinute": 1000}, 20, 500), ({}, 20, 1000)],
)
def test_an_event_of_many_tokens_counts_as_many(
    clock: Clock, tmp_path: Path, limits: dict[str, int], events: int, answer: int
) -> None:
    """No more of them than the request may have got."""
    client = clock.client(tmp_path, **limits)
    body = {"max_tokens": 500, "stream": True, "stream_interval": 50}
    charge = admitted(client, body, 29)
    charge.count_events(EVENT * events)
    charge.settle(None, answered=False, left=True)
    assert client.counts.answer_tokens == answer


@pytest.mark.parametrize(
    ("ends", "prompt", "answer"),
    [
        ({"answered": False}, 0, 0),
        ({"answered": True}, 10, 0),
        ({"answered": False, "left": True}, 10, 90),
    ],
)
def test_what_a_request_costs_without_a_count(
    clock: Clock, tmp_path: Path, ends: dict[str, bool], prompt: int, answer: int
) -> None:
    client = clock.client(tmp_path, tokensPerMinute=1000)
    admitted(client).settle(None, **ends)
    assert (client.counts.prompt_tokens, client.counts.answer_tokens) == (prompt, answer)
    assert client.reserved == 0
