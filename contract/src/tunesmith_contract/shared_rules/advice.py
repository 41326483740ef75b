"""Advice in numbers: is fine-tuning worth it?

Operator and console command give it with the report of an evaluation, best before any training: the base model with a
prompt and worked examples, against the score that is needed or a larger model. The rules of thumb are those that
courses teach: fine-tune where a gap of 20 % or more remains after few-shot prompting and at least 100 examples are at
hand; 100 to 500 good examples teach a task with LoRA, 1,000 to 10,000 a domain, and preferences take 5,000 to 50,000
pairs. docs/compare-models.md explains each sentence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunesmith_contract.evaluation import Gate, Metric, ModelUse, Side, Suite, TokenPrices
from tunesmith_contract.report import EvaluationReport, Interval, MetricResult, SideUsage
from tunesmith_contract.run_config import EvaluateConfig

FEWEST_EXAMPLES = 100
WORTHWHILE_GAP = 0.2

MAX_ADVICE = 2048

_TASK, _DOMAIN, _PAIRS = (100, 500), (1_000, 10_000), (5_000, 50_000)
_LOWER_IS_BETTER = frozenset({Metric.PERPLEXITY, Metric.BITS_PER_BYTE, Metric.LATENCY, Metric.TOKENS})
_MILLION = 10**6


@dataclass(frozen=True, slots=True)
class _Compared:
    """A side with its score and what its answers took."""

    side: Side
    score: Interval
    usage: SideUsage | None


@dataclass(frozen=True, slots=True)
class _Gap:
    """What is missing to the bar, as a share of the bar; negative where it is exceeded."""

    value: float
    low: float
    high: float
    bar: float
    bar_name: str


def advise(config: EvaluateConfig, report: EvaluationReport, use: ModelUse) -> str:
    """Answer to the question of fine-tuning, in one text of at most MAX_ADVICE characters."""
    return " ".join(advice_sentences(config, report, use))[:MAX_ADVICE]


def advice_sentences(config: EvaluateConfig, report: EvaluationReport, use: ModelUse) -> list[str]:
    """Answer to the question of fine-tuning, in sentences with numbers.

    The score is that of the first gate whose metric was measured, of the candidate if it is tuned, else of the first
    side that could be tuned: a base model or another model whose weights are read.
    """
    result = _decisive_result(config.gates, report.results)
    if result is None:
        return ["No advice: the metric of no gate was measured."]
    compared = _compared(config, report, result)
    candidates = compared[:1] if _is_tuned(compared[0].side) else compared
    subject = next((one for one in candidates if _could_be_tuned(one.side)), compared[0])
    others = [one for one in compared if one is not subject]
    metric = _type_of(config.suites, result)
    gap = _gap(subject, others, result, use.bar, lower_is_better=metric in _LOWER_IS_BETTER)
    return [
        *_about_gap(subject, gap, result),
        *_about_data(use.examples, gap if _could_be_tuned(subject.side) else None),
        *_about_latency(compared, use.latency_budget),
        *_about_prices(subject, others, config, report, use),
        *_missing(subject, gap, use),
    ]


def _decisive_result(gates: Sequence[Gate], results: Sequence[MetricResult]) -> MetricResult | None:
    measured = {(result.suite, result.metric): result for result in results}
    found = (measured.get((gate.suite, gate.metric)) for gate in gates)
    return next(filter(None, found), None)


def _type_of(suites: Sequence[Suite], result: MetricResult) -> Metric | None:
    metrics = (metric for suite in suites if suite.name == result.suite for metric in suite.metrics)
    return next((metric.type for metric in metrics if metric.key == result.metric), None)


def _compared(config: EvaluateConfig, report: EvaluationReport, result: MetricResult) -> list[_Compared]:
    """Sides with a score; references may have lost theirs on the way to the operator."""
    usage: list[SideUsage | None] = [*report.usage] or [None] * len(config.sides)
    return [
        _Compared(side, score, used)
        for side, score, used in zip(config.sides, result.scores, usage, strict=False)
    ]


def _is_tuned(side: Side) -> bool:
    return side.adapter is not None or side.checkpoint is not None


def _could_be_tuned(side: Side) -> bool:
    return side.is_loaded and not _is_tuned(side)


def _gap(
    subject: _Compared,
    others: Sequence[_Compared],
    result: MetricResult,
    bar: float | None,
    *,
    lower_is_better: bool,
) -> _Gap | None:
    """Gap to the bar, or to the best other side where no bar is stated; None without either."""
    sign = -1 if lower_is_better else 1
    if bar is not None:
        behind = Interval(*(edge - bar for edge in subject.score))
        return _share_of(bar, "the bar", behind, sign) if bar else None
    best = max(others, key=lambda one: sign * one.score.value, default=None)
    if best is None or best.score.value <= 0 or _is_tuned(subject.side):
        return None
    reached, name = best.score.value, best.side.name
    difference = _paired(subject.side.name, name, result)
    if difference is None:
        difference = Interval(*(edge - reached for edge in subject.score))
    return _share_of(reached, name, difference, sign)


def _share_of(bar: float, name: str, difference: Interval, sign: int) -> _Gap:
    """Gap of a difference from the bar (score minus bar), as a share of the bar."""
    low, high = sorted(-sign * edge / bar for edge in (difference.low, difference.high))
    return _Gap(-sign * difference.value / bar, low, high, bar, name)


def _paired(subject: str, other: str, result: MetricResult) -> Interval | None:
    """Paired difference of two sides, subject minus other; None unless they are candidate and baseline."""
    delta = result.delta
    if (subject, other) == ("candidate", "baseline"):
        return delta
    if (subject, other) == ("baseline", "candidate"):
        return Interval(-delta.value, -delta.high, -delta.low)
    return None


def _about_gap(subject: _Compared, gap: _Gap | None, result: MetricResult) -> Iterator[str]:
    score, name = subject.score, subject.side.name
    measured = (
        f"{name} scores {score.value:.3g} ({score.low:.3g} to {score.high:.3g}) by {result.metric} on "
        f"{result.items:,} items of {result.suite}"
    )
    if gap is None:
        yield f"{measured}."
        return
    target = (
        f"{gap.bar_name}, {gap.bar:.3g}" if gap.bar_name == "the bar" else f"{gap.bar_name}'s {gap.bar:.3g}"
    )
    if gap.high <= 0:
        needless = ": by quality, fine-tuning is not needed" if _could_be_tuned(subject.side) else ""
        yield f"{measured}, which reaches {target}{needless}."
        return
    missing = f"{_percent(gap.value)} of it are missing ({_percent(gap.low)} to {_percent(gap.high)})"
    yield f"{measured}; of {target}, {missing}."
    if not _could_be_tuned(subject.side):
        return
    if gap.low >= WORTHWHILE_GAP:
        yield f"That is more than the {_percent(WORTHWHILE_GAP)} from which fine-tuning usually pays off."
    elif gap.high < WORTHWHILE_GAP:
        yield (
            f"That is less than the {_percent(WORTHWHILE_GAP)} from which fine-tuning usually pays off: try a better "
            "prompt, more worked examples or retrieved passages first."
        )
    else:
        yield (
            f"Fine-tuning usually pays off from {_percent(WORTHWHILE_GAP)}; these items do not decide on which side of "
            "that the gap lies."
        )


def _about_data(examples: int | None, gap: _Gap | None) -> Iterator[str]:
    if examples is None:
        return
    needs = (
        f"a task takes {_range(_TASK)} good ones with LoRA, a domain {_range(_DOMAIN)}, preferences "
        f"{_range(_PAIRS)} pairs"
    )
    if examples < FEWEST_EXAMPLES:
        yield (
            f"{examples:,} examples are too few: {needs}. Collect at least {FEWEST_EXAMPLES:,}, or let a larger model "
            "write some (dataset.generate)."
        )
        return
    enough = [
        words
        for words, (fewest, _) in (("a task", _TASK), ("a domain", _DOMAIN), ("preferences", _PAIRS))
        if examples >= fewest
    ]
    yield f"{examples:,} examples are enough for {' and '.join(enough)}: {needs}."
    if gap is not None and gap.low >= WORTHWHILE_GAP:
        yield "So fine-tuning is worth it by quality and by data."


def _about_latency(compared: Sequence[_Compared], budget: float | None) -> Iterator[str]:
    if budget is None:
        return
    told = [
        f"{one.side.name} {one.usage.latency:.3g} s ({'within' if one.usage.latency <= budget else 'above'} it)"
        for one in compared
        if one.usage is not None and one.usage.latency is not None
    ]
    if told:
        yield (
            f"The median answer takes, of a budget of {budget:g} s: {', '.join(told)}. The engine of an evaluation "
            "answers in batches, so a served model may answer faster."
        )


def _about_prices(
    subject: _Compared,
    others: Sequence[_Compared],
    config: EvaluateConfig,
    report: EvaluationReport,
    use: ModelUse,
) -> Iterator[str]:
    """Prices of each side, and after how many requests training has paid for itself."""
    priced = [
        (one, one.side.endpoint.prices) for one in others if one.side.endpoint and one.side.endpoint.prices
    ]
    for one, prices in priced:
        yield f"{one.side.name} costs {_priced(prices)}."
    if use.prices is not None:
        yield f"The tuned model costs {_priced(use.prices)}."
    if not priced or use.prices is None or use.training_cost is None:
        return
    answers = sum(
        (counts.items - counts.leaked) * suite.repeats
        for counts, suite in zip(report.suites, config.suites, strict=False)
    )
    other, prices = priced[0]
    if other.usage is None or subject.usage is None or not answers:
        return
    if prices.currency != use.prices.currency:
        yield f"The prices are in {prices.currency} and {use.prices.currency}: write them in one currency."
        return
    saved = _per_request(prices, other.usage, answers) - _per_request(use.prices, subject.usage, answers)
    if saved <= 0:
        yield f"A request costs no less than with {other.side.name}: training does not pay for itself by price."
        return
    requests = use.training_cost / saved
    months = "" if use.requests_per_month is None else f", {_months(requests / use.requests_per_month)}"
    yield (
        f"A request costs {saved:.3g} {prices.currency} less than with {other.side.name}, so a training of "
        f"{use.training_cost:g} {prices.currency} pays for itself after {requests:,.0f} requests{months}. This assumes "
        f"that the tuned model takes the tokens that {subject.side.name} took here; without worked examples it takes "
        "fewer."
    )


def _missing(subject: _Compared, gap: _Gap | None, use: ModelUse) -> Iterator[str]:
    """What would have to be known to say more."""
    lacking = []
    if gap is None:
        lacking.append("advice.bar, the score that is needed")
    if use.examples is None:
        lacking.append("advice.examples, the examples at hand")
    if use.latency_budget is None:
        lacking.append("advice.latencyBudgetSeconds")
    if use.training_cost is None or use.prices is None:
        lacking.append("advice.trainingCost and advice.prices, beside the prices of an endpoint")
    if lacking:
        yield f"To say more, write {'; '.join(lacking)}."
    if _could_be_tuned(subject.side) and subject.side.few_shot == 0 and (gap is None or gap.high > 0):
        yield (
            f"{subject.side.name} was shown no worked examples: measure it with fewShot too, since fine-tuning has to "
            "beat a good prompt."
        )
    if _is_tuned(subject.side) and gap is not None and gap.high > 0:
        yield f"{subject.side.name} is tuned already: more data or another method may close the gap."


def _per_request(prices: TokenPrices, usage: SideUsage, answers: int) -> float:
    spent = float(prices.prompt) * usage.prompt_tokens + float(prices.completion) * usage.completion_tokens
    return spent / _MILLION / answers


def _priced(prices: TokenPrices) -> str:
    return (
        f"{prices.prompt:f} {prices.currency} per million tokens of prompts and {prices.completion:f} "
        f"{prices.currency} per million of answers"
    )


def _months(months: float) -> str:
    return "in less than a month" if months < 1 else f"in {months:,.1f} months"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _range(counts: tuple[int, int]) -> str:
    return f"{counts[0]:,} to {counts[1]:,}"
