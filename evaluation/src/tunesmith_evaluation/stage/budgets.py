"""Budgets of endpoints: a check before the first request, and counts of the requests that they did not cover."""

from collections.abc import Iterator, Sequence

from tunesmith_contract.evaluation import JudgeMode, Metric, MetricSettings
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_data.failures import UserError
from tunesmith_evaluation.items.requests import Problem, Request

from .scoring import ScoredSuite
from .suites import LoadedSuite


def check_budgets(config: EvaluateConfig, suites: Sequence[LoadedSuite], requests: Sequence[Request]) -> None:
    """Check that budgets allow as many calls as there are requests to sides and questions to judges.

    A judge is counted with all questions that there can be: answers without text, and equal ones, are not judged.
    Tokens and amounts are known only when the answers are there.

    Raises:
        UserError: a budget does not.
    """
    for side in config.sides:
        budget = side.endpoint.budget if side.endpoint else None
        needed = sum(request.side == side.name for request in requests)
        if budget is not None and budget.calls is not None and needed > budget.calls:
            raise _too_small(f"side {side.name} has to answer {needed:,} requests", budget.calls)
    for suite in suites:
        for metric in suite.suite.metrics:
            budget = metric.judge.endpoint.budget if metric.judge else None
            if budget is None or budget.calls is None:
                continue
            count, words = _questions(metric, len(suite.items), suite.suite.repeats, len(config.sides))
            if count > budget.calls:
                what = (
                    f"the judge of suite {suite.name}, metric {metric.key}, may be asked {count:,} questions"
                )
                raise _too_small(f"{what} ({words})", budget.calls)


def _too_small(needed: str, calls: int) -> UserError:
    message = (
        f"{needed}, but its budget allows {calls:,} calls: raise budget.calls, or set a limit for the suite"
    )
    return UserError("BudgetTooSmall", message)


def _questions(metric: MetricSettings, items: int, repeats: int, sides: int) -> tuple[int, str]:
    """Largest number of questions to a judge, and its factors in words."""
    assert metric.judge is not None
    if metric.type is Metric.JUDGE and metric.judge.mode is JudgeMode.PAIRS:
        return items * 2 * (sides - 1), f"{items:,} items, 2 orders, {sides - 1} compared with the baseline"
    return items * repeats * sides, f"{items:,} items, {repeats} answers of each, {sides} sides"


def metrics_beyond_budget(scored: Sequence[ScoredSuite]) -> frozenset[tuple[str, str]]:
    """Suite and key of each metric for which candidate, baseline or judge were not asked all."""
    return frozenset(
        (suite.loaded.name, key)
        for suite in scored
        for key in suite.scores
        if any(_unasked_items(suite, side) for side in list(suite.replies)[:2])
        or _unasked_questions(suite, key)
    )


def describe_unasked(scored: Sequence[ScoredSuite]) -> Iterator[str]:
    """Sentences on the requests that budgets did not cover."""
    for suite in scored:
        for side in suite.replies:
            if items := _unasked_items(suite, side):
                asked = f"{items:,} items of suite {suite.loaded.name} were not asked"
                yield f"The budget of side {side} was used up: {asked}."
        for key in suite.scores:
            if questions := _unasked_questions(suite, key):
                yield (
                    f"The budget of the judge of suite {suite.loaded.name}, metric {key}, was used up: {questions:,} "
                    "questions were not asked."
                )


def _unasked_items(suite: ScoredSuite, side: str) -> int:
    return sum(
        any(reply.problem is Problem.BEYOND_BUDGET for reply in repeats) for repeats in suite.replies[side]
    )


def _unasked_questions(suite: ScoredSuite, key: str) -> int:
    scorer = suite.loaded.scorers.get(key)
    settings = next(metric for metric in suite.loaded.suite.metrics if metric.key == key)
    if scorer is None or settings.judge is None:
        return 0
    usage = scorer.summarize(next(iter(suite.scores[key].values()), ())).get("usage", {})
    return int(usage.get("unasked", 0))
