"""Token budget and journal under concurrency, lost answers and killed pods."""

import signal
import threading
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases
from servers.scripted_server import Received, Reply, serve
from servers.scripted_teacher import Teacher, answer, kind_of, said, text_of
from stages.generation_runs import Setting, journalled, prompts
from stages.stage_world import RowBuilders, World

from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.generation import CallBudget
from tunesmith_contract.report import Outcome, parse_report
from tunesmith_data.endpoints.client import EndpointBusy, RequestRefused
from tunesmith_data.endpoints.journal import ChatAnswer, Journal, Spending, TokenUsage
from tunesmith_data.endpoints.token_budget import BudgetExhausted, TokenBudget
from tunesmith_data.failures import DataError, InfrastructureError
from tunesmith_data.generate.rate_limiter import Clock, RateLimiter

PRICES = {"inputPricePerMillion": "100000", "outputPricePerMillion": "200000", "currency": "EUR"}


@pytest.fixture
def setting(world: World, tmp_path: Path) -> Setting:
    return Setting(world, tmp_path / "secrets")


class FakeClock:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waits: list[float] = []
        self.clock = Clock(lambda: self.time, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += seconds


@settings(max_examples=cases(60, 1200))
@given(
    calls=st.integers(1, 12),
    tokens=st.none() | st.integers(1, 400),
    amount=st.none() | st.decimals(0, 40, places=2),
    asked=st.lists(
        st.tuples(
            st.integers(0, 40), st.integers(1, 40), st.floats(0, 1), st.sampled_from(["well", "lost", "away"])
        ),
        max_size=24,
    ),
    threads=st.integers(1, 4),
)
def test_no_limit_is_ever_passed(
    tmp_path_factory: pytest.TempPathFactory,
    calls: int,
    tokens: int | None,
    amount: Decimal | None,
    asked: list[tuple[int, int, float, str]],
    threads: int,
) -> None:
    """What endpoints took in fact, and what they may have taken of requests that were lost, is within the budget."""
    prices = PRICES if amount is not None else {}
    budget = CallBudget.model_validate({"calls": calls, "tokens": tokens, "amount": amount, **prices})
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    lock, taken = threading.Lock(), [Spending()]
    left = list(enumerate(asked))

    def work(budget: TokenBudget) -> None:
        while True:
            with lock:
                if not left:
                    return
                number, (prompt, max_usage, share, way) = left.pop()
            usage = TokenUsage(round(prompt * share), round(max_usage * share))
            try:
                with budget.reserve(str(number), TokenUsage(prompt, max_usage)) as settle:
                    if way == "away":
                        raise EndpointBusy("busy", not_processed=True)
                    with lock:
                        taken[0] = taken[0].add_calls(usage)
                    if way == "lost":
                        raise EndpointBusy("hung up")
                    settle(ChatAnswer("yes", True, usage))
            except (EndpointBusy, BudgetExhausted):
                pass

    with Journal(path, lambda _: None) as journal:
        token_budget = TokenBudget(budget, journal)
        workers = [threading.Thread(target=work, args=(token_budget,)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        spent = journal.spent
    assert all(really <= counted for really, counted in zip(taken[0], spent, strict=True))
    assert spent.calls <= calls
    assert tokens is None or spent.prompt_tokens + spent.completion_tokens <= tokens
    cost = (spent.prompt_tokens * 100_000 + spent.completion_tokens * 200_000) / Decimal(10**6)
    assert amount is None or cost <= amount
    with Journal(path, lambda _: None) as again:
        assert again.spent == spent


@pytest.mark.parametrize(
    ("error", "calls"),
    [(RequestRefused("no"), 0), (EndpointBusy("busy", not_processed=True), 0), (EndpointBusy("gone"), 1)],
)
def test_what_was_turned_away_costs_nothing_and_what_was_lost_may_have(
    tmp_path: Path, error: Exception, calls: int
) -> None:
    with Journal(tmp_path / "journal.jsonl", lambda _: None) as journal:
        budget = TokenBudget(CallBudget(calls=5), journal)
        with pytest.raises(type(error)), budget.reserve("question", TokenUsage(7, 3)):
            raise error
        assert journal.spent == Spending().add_calls(TokenUsage(7, 3), calls)


def test_a_journal_goes_on_in_the_next_file(tmp_path: Path) -> None:
    kept: list[str] = []
    for start in (0, 5):
        with Journal(
            tmp_path / "j.jsonl", lambda file: kept.append(file.name), 1, lines_per_file=3
        ) as journal:
            for number in range(start, start + 5):
                journal.put(str(number), ChatAnswer(f"say {number}", True, TokenUsage(1, 2)))
            assert journal.spent == Spending().add_calls(TokenUsage(1, 2), start + 5)
            assert journal.get("0") == ChatAnswer("say 0", True, TokenUsage(1, 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "j-1.jsonl",
        "j-2.jsonl",
        "j-3.jsonl",
        "j.jsonl",
    ]
    assert kept.count("j.jsonl") == 3, "a full file is not kept again"


@pytest.mark.parametrize(
    "budget",
    [
        {"calls": 11},
        {"calls": 100, "tokens": 1500},
        {"calls": 100, "amount": "200", **PRICES},
    ],
)
def test_the_stage_stops_at_its_budget_with_what_there_is(setting: Setting, budget: dict[str, Any]) -> None:
    with serve(Teacher()) as server:
        config = setting.config(
            server.url,
            prompts(60),
            budget=budget,
            maxTokens=20,
            filter={"judge": {"minimum": 1, "maxTokens": 20}},
        )
        report = setting.run(config)
        requests = len(server.received)
        assert requests == report.calls <= budget["calls"]
        assert report.prompt_tokens + report.completion_tokens <= budget.get("tokens", 10**9)
        assert Decimal(report.amount or 0) <= Decimal(budget.get("amount", 10**9))
        assert 0 < report.rows < 60
        assert "the budget was used up" in report.warnings[0]
        asked, scored = (
            sum(kind_of(each) == kind for each in server.received) for kind in ("answer", "score")
        )
        assert asked == scored, "no answer is paid for whose judge is not"
        assert setting.run(config) == report
        assert len(server.received) == requests


def test_an_item_is_begun_only_if_all_its_rows_can_be_judged(setting: Setting, make: RowBuilders) -> None:
    reward_filter = {"judge": {"minimum": 1}}
    with serve(Teacher()) as server:
        config = setting.config(
            server.url, make.rows(9), "selfInstruct", budget={"calls": 11}, filter=reward_filter
        )
        report = setting.run(config)
    assert (report.rows, report.calls) == (5, 6), "five calls are left, and the next five rows need six"


def test_too_few_rows_fail_and_say_what_became_of_them(setting: Setting) -> None:
    with serve(Teacher()) as server:
        config = setting.config(server.url, prompts(9), budget={"calls": 4}, minimumRows=5)
        with pytest.raises(
            DataError, match=r"4 rows were generated and minimumRows is 5 \(the budget was used up"
        ):
            setting.run(config)


def test_an_answer_that_tells_no_usage_counts_with_all_it_may_have_taken(setting: Setting) -> None:
    def silent(request: Received) -> Reply:
        return Reply(body={"choices": [{"message": {"content": "well"}}]})

    with serve(silent) as server:
        report = setting.run(setting.config(server.url, prompts(2), maxTokens=20))
    assert report.completion_tokens == 40
    assert report.prompt_tokens > 2 * len("turn 0 around")


def test_a_killed_pod_asks_no_question_again_that_was_answered(setting: Setting) -> None:
    import psutil

    release, enough = threading.Event(), threading.Event()
    teacher, served = Teacher(), Counter[str]()

    def slow(request: Received) -> Reply:
        if len(server.received) > 30:
            enough.set()
            release.wait(60)
        served[text_of(request)] += 1
        return teacher(request)

    with serve(slow) as server:
        config = setting.config(server.url, prompts(50), budget={"calls": 60})
        pod = setting.world.start(config)
        assert enough.wait(60)
        for child in psutil.Process(pod.pid).children(recursive=True):
            child.kill()
        pod.kill()
        pod.communicate(timeout=30)
        known = journalled(setting.folder / "journal")
        assert 30 - config.generation.concurrency <= len(known) <= 30
        release.set()
        server.received.clear()
        report = setting.run(config)
        again = {answer(text_of(request)) for request in server.received}
    assert not known & again
    assert report.rows == len(known | again) == 50
    lost = report.calls - 50
    assert 0 < lost <= config.generation.concurrency, (
        "requests that were on their way may have to be paid for"
    )


def test_a_restart_does_not_reset_the_budget(setting: Setting) -> None:
    def dying(request: Received) -> Reply:
        return said("well") if len(server.received) <= 6 else Reply(503)

    clock = FakeClock()
    with serve(dying) as server:
        config = setting.config(server.url, prompts(20), budget={"calls": 10}, concurrency=1)
        with pytest.raises(InfrastructureError, match=r"the teacher at .* cannot be reached"):
            setting.run(config, clock.clock)
        tries = len(server.received) - 6
        server.received.clear()
        report = setting.run(config, clock.clock)
    assert tries > 1
    assert (report.rows, report.calls) == (10, 10), "a teacher that turns away is not paid"
    assert len(server.received) == 4


def test_a_pod_that_is_told_to_go_keeps_its_answers(setting: Setting) -> None:
    release, enough = threading.Event(), threading.Event()
    teacher = Teacher()

    def slow(request: Received) -> Reply:
        if len(server.received) > 10:
            enough.set()
            release.wait(60)
        return teacher(request)

    with serve(slow) as server:
        config = setting.config(server.url, prompts(40))
        pod = setting.world.start(config)
        assert enough.wait(60)
        pod.send_signal(signal.SIGTERM)
        release.set()
        pod.communicate(timeout=60)
        assert pod.returncode == ExitCode.PREEMPTED
        report = parse_report((setting.world.root / "log").read_bytes())
        assert report and (report.stage, report.outcome) == ("generate", Outcome.PREEMPTED)
        asked = len(server.received)
        assert asked < 40
        assert setting.run(config).calls == 40
    assert len(server.received) == 40


def test_a_pod_that_waits_for_its_endpoint_goes_when_it_is_told_to(setting: Setting) -> None:
    throttled = threading.Event()

    def throttle(request: Received) -> Reply:
        throttled.set()
        return Reply(429, headers={"Retry-After": "3000"})

    with serve(throttle) as server:
        pod = setting.world.start(setting.config(server.url, prompts(9)))
        assert throttled.wait(60)
        pod.send_signal(signal.SIGTERM)
        log, _ = pod.communicate(timeout=60)
    assert pod.returncode == ExitCode.PREEMPTED, log


def test_a_finished_stage_says_the_same_again_and_asks_nobody(setting: Setting) -> None:
    with serve(Teacher()) as server:
        config = setting.config(server.url, prompts(5))
        for _ in range(2):
            pod = setting.world.start(config)
            output, _ = pod.communicate(timeout=60)
            assert pod.returncode == 0, output
            report = parse_report((setting.world.root / "log").read_bytes())
            assert report and report.generation and report.generation.rows == 5
        assert len(server.received) == 5


def test_all_wait_as_long_as_the_endpoint_asks(setting: Setting) -> None:
    clock, told = FakeClock(), threading.Event()
    times: list[float] = []

    def throttle(request: Received) -> Reply:
        times.append(clock.time)
        if len(times) == 3 and not told.is_set():
            told.set()
            return Reply(429, headers={"Retry-After": "40"})
        return said("well")

    with serve(throttle) as server:
        report = setting.run(setting.config(server.url, prompts(6), concurrency=1), clock.clock)
    assert (report.rows, report.calls) == (6, 6)
    assert len(times) == 7
    assert times[3] >= 40


def test_an_hour_is_waited_and_no_longer(setting: Setting) -> None:
    clock, asked = FakeClock(), ["3600", "3601"]
    with (
        serve(lambda _: Reply(429, headers={"Retry-After": asked.pop(0)})) as server,
        pytest.raises(InfrastructureError, match="429"),
    ):
        setting.run(setting.config(server.url, prompts(1)), clock.clock)
    assert clock.time == pytest.approx(3600)


@given(st.lists(st.floats(0, 30), min_size=1, max_size=60), st.integers(1, 120))
def test_no_minute_sees_more_requests_than_it_may(pauses: list[float], per_minute: int) -> None:
    clock = FakeClock()
    rate_limiter, sent = RateLimiter(per_minute, clock.clock), []
    for pause in pauses:
        clock.time += pause
        rate_limiter.wait()
        sent.append(clock.time)
    for start in sent:
        assert sum(start <= time < start + 60 - 1e-6 for time in sent) <= per_minute


def test_who_is_held_passes_later() -> None:
    clock = FakeClock()
    rate_limiter = RateLimiter(None, clock.clock)
    rate_limiter.wait()
    rate_limiter.pause(12)
    rate_limiter.wait()
    assert clock.time == 12
