"""Token budget: what it allows, and what a request costs by the way it ends."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tunesmith_contract.generation import CallBudget
from tunesmith_data.endpoints.client import EndpointBusy, RequestRefused
from tunesmith_data.endpoints.journal import ChatAnswer, Journal, Spending, TokenUsage
from tunesmith_data.endpoints.token_budget import BudgetExhausted, TokenBudget

MAX_USAGE = TokenUsage(prompt=60, completion=40)
PRICES = {"inputPricePerMillion": "100000", "outputPricePerMillion": "200000", "currency": "EUR"}

BudgetBuilder = Callable[..., TokenBudget]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[BudgetBuilder]:
    """Builds a budget with an empty journal."""
    with Journal(tmp_path / "journal.jsonl", lambda _: None) as journal:
        yield lambda **limits: TokenBudget(CallBudget.model_validate({"calls": 10, **limits}), journal)


@pytest.mark.parametrize(
    ("limits", "more", "allowed"),
    [
        ({}, Spending(calls=10), True),
        ({}, Spending(calls=11), False),
        ({"tokens": 100}, Spending(1, 60, 40), True),
        ({"tokens": 100}, Spending(1, 60, 41), False),
        ({"amount": "14", **PRICES}, Spending(1, 60, 40), True),
        ({"amount": "13.99", **PRICES}, Spending(1, 60, 40), False),
    ],
)
def test_limits(build: BudgetBuilder, limits: dict[str, Any], more: Spending, allowed: bool) -> None:
    assert build(**limits).allows(more) is allowed


def test_an_answer_costs_what_it_used(build: BudgetBuilder) -> None:
    budget = build(**PRICES, amount="100")
    with budget.reserve("question", MAX_USAGE) as record_answer:
        assert budget.spent == Spending(1, 60, 40)
        record_answer(ChatAnswer("yes", True, TokenUsage(50, 1)))
    assert (budget.spent, budget.amount) == (Spending(1, 50, 1), Decimal("5.2"))


@pytest.mark.parametrize(
    ("error", "spent"),
    [
        (RequestRefused("HTTP 400"), Spending()),
        (EndpointBusy("HTTP 429", not_processed=True), Spending()),
        (EndpointBusy("connection lost"), Spending(1, 60, 40)),
    ],
)
def test_a_failed_request_costs_nothing_unless_it_may_have_been_processed(
    build: BudgetBuilder, error: Exception, spent: Spending
) -> None:
    budget = build()
    with pytest.raises(type(error)), budget.reserve("question", MAX_USAGE):
        raise error
    assert budget.spent == spent
    assert not budget.exhausted


def test_a_request_beyond_the_budget_is_not_sent(build: BudgetBuilder) -> None:
    budget = build(tokens=99)
    with pytest.raises(BudgetExhausted), budget.reserve("question", MAX_USAGE):
        pytest.fail("the request was sent")
    assert budget.exhausted
    assert budget.spent == Spending()


def test_without_prices_there_is_no_amount(build: BudgetBuilder) -> None:
    assert build().amount is None
