"""Cost of endpoints: of the sides that answer by one, and of judges."""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from tunesmith_contract.evaluation import Side
from tunesmith_contract.report import SideUsage

from .scoring import ScoredSuite

_MILLION = 10**6

#: An amount in a currency.
Amount = tuple[Decimal, str]


def sum_costs(
    sides: Sequence[Side], usage: Sequence[SideUsage], scored: Sequence[ScoredSuite]
) -> dict[str, str | None]:
    """``amount`` and ``currency`` of all endpoints that have prices; both None without any, or in two currencies.

    Args:
        sides: the sides.
        usage: tokens of each side, in the same order.
        scored: suites with their scorers.
    """
    of_sides = (side_amount(side, used) for side, used in zip(sides, usage, strict=True))
    amounts = [*filter(None, of_sides), *_judge_amounts(scored)]
    currencies = {currency for _, currency in amounts}
    if len(currencies) != 1:
        return {"amount": None, "currency": None}
    total = sum((amount for amount, _ in amounts), Decimal(0))
    return {"amount": f"{total:.6f}", "currency": currencies.pop()}


def side_amount(side: Side, used: SideUsage) -> Amount | None:
    """Cost of a side's answers; None for one without prices."""
    prices = side.endpoint.prices if side.endpoint else None
    if prices is None:
        return None
    spent = prices.prompt * used.prompt_tokens + prices.completion * used.completion_tokens
    return spent / _MILLION, prices.currency


def _judge_amounts(scored: Iterable[ScoredSuite]) -> Iterator[Amount]:
    """Cost of each judge for all sides together."""
    for suite in scored:
        for metric in suite.loaded.suite.metrics:
            scorer = suite.loaded.scorers.get(metric.key)
            if metric.judge is None or scorer is None:
                continue
            first = next(iter(suite.scores[metric.key].values()), ())
            used = scorer.summarize(first).get("usage", {})
            if "amount" in used:
                yield Decimal(used["amount"]), used["currency"]
