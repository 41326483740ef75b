"""Advice in numbers, before and after training."""

from typing import Any

import pytest

from tunesmith_contract.evaluation import ModelUse, TokenPrices
from tunesmith_contract.report import (
    Artifact,
    EvaluationReport,
    Interval,
    MetricResult,
    SideUsage,
    SuiteCounts,
)
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.shared_rules.advice import MAX_ADVICE, advise

DIGEST = f"sha256:{'a' * 64}"
HOSTED = {
    "name": "baseline",
    "endpoint": {
        "url": "https://big.example/v1",
        "model": "big",
        "prices": {"prompt": "3", "completion": "15", "currency": "EUR"},
    },
}
OWN_PRICES = TokenPrices.model_validate({"prompt": "0.2", "completion": "0.4", "currency": "EUR"})
TUNED = {"name": "candidate", "adapter": {"uri": "pvc://artifacts/x", "digest": DIGEST}}
BASE = {"name": "candidate", "fewShot": 4}


def config(*sides: dict[str, Any], metric: str = "ExactMatch") -> EvaluateConfig:
    suite = {"name": "task", "dataset": "pvc://data/t.jsonl", "metrics": [{"type": metric}], "repeats": 2}
    return EvaluateConfig.model_validate(
        {
            "owner": {"kind": "EvalRun", "namespace": "team", "name": "worth-it", "uid": "u"},
            "baseModel": "pvc://models/tiny",
            "sides": sides or (BASE, HOSTED),
            "suites": [suite],
            "gates": [{"suite": "task", "metric": metric, "expect": "Better"}],
            "output": "pvc://reports/team",
        }
    )


def report(
    candidate: tuple[float, float, float] = (0.6, 0.55, 0.65),
    baseline: tuple[float, float, float] = (0.9, 0.86, 0.94),
    delta: tuple[float, float, float] = (-0.3, -0.35, -0.25),
    metric: str = "ExactMatch",
) -> EvaluationReport:
    scores = (Interval(*candidate), Interval(*baseline))
    return EvaluationReport(
        sides=("candidate", "baseline"),
        results=(MetricResult("task", metric, 400, scores, Interval(*delta), 0.001),),
        suites=(SuiteCounts(410, leaked=10),),
        usage=(SideUsage("r1", 800_000, 80_000, 0.4), SideUsage("", 400_000, 80_000, 2.5)),
        policy_digest=DIGEST,
        details=Artifact(uri="pvc://reports/items.jsonl", digest=DIGEST, size_bytes=1),
    )


def test_a_wide_gap_and_enough_examples_are_worth_it() -> None:
    told = advise(config(), report(), ModelUse(bar=0.9, examples=800))
    assert "candidate scores 0.6 (0.55 to 0.65) by ExactMatch on 400 items of task" in told
    assert "of the bar, 0.9, 33 % of it are missing (28 % to 39 %)" in told
    assert "more than the 20 % from which fine-tuning usually pays off" in told
    assert "800 examples are enough for a task: a task takes 100 to 500" in told
    assert "So fine-tuning is worth it by quality and by data." in told


def test_without_a_bar_the_best_other_model_is_the_bar_with_the_paired_interval() -> None:
    told = advise(config(), report(), ModelUse())
    assert "of baseline's 0.9, 33 % of it are missing (28 % to 39 %)" in told
    paired = advise(config(), report(delta=(-0.3, -0.31, -0.29)), ModelUse())
    assert "(32 % to 34 %)" in paired
    turned = advise(
        config({**HOSTED, "name": "candidate"}, {**BASE, "name": "baseline"}),
        report((0.9, 0.86, 0.94), (0.6, 0.55, 0.65), (0.3, 0.29, 0.31)),
        ModelUse(),
    )
    assert "baseline scores 0.6" in turned
    assert "of candidate's 0.9, 33 % of it are missing (32 % to 34 %)" in turned


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ((0.95, 0.92, 0.98), "which reaches the bar, 0.9: by quality, fine-tuning is not needed."),
        (
            (0.85, 0.82, 0.88),
            "less than the 20 % from which fine-tuning usually pays off: try a better prompt",
        ),
        ((0.72, 0.6, 0.82), "these items do not decide on which side of that the gap lies"),
    ],
)
def test_a_gap_that_is_narrow_or_unsure_is_told_as_such(
    score: tuple[float, float, float], words: str
) -> None:
    told = advise(config(), report(score), ModelUse(bar=0.9, examples=800))
    assert words in told
    assert "is worth it by quality and by data" not in told


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        (0, "0 examples are too few"),
        (99, "Collect at least 100"),
        (100, "100 examples are enough for a task:"),
        (1_000, "1,000 examples are enough for a task and a domain:"),
        (5_000, "enough for a task and a domain and preferences:"),
    ],
)
def test_examples_are_compared_with_what_a_method_needs(examples: int, words: str) -> None:
    assert words in advise(config(), report(), ModelUse(bar=0.9, examples=examples))


def test_lower_is_better_for_perplexity() -> None:
    told = advise(
        config(metric="Perplexity"),
        report((12.0, 11.0, 13.0), (8.0, 7.5, 8.5), (4.0, 3.0, 5.0), "Perplexity"),
        ModelUse(bar=8.0, examples=200),
    )
    assert "of the bar, 8, 50 % of it are missing (38 % to 62 %)" in told
    reached = report((7.0, 6.5, 7.5), (8.0, 7.5, 8.5), (-1.0, -1.5, -0.5), "Perplexity")
    assert "reaches the bar, 8" in advise(config(metric="Perplexity"), reached, ModelUse(bar=8.0))


def test_latency_is_compared_with_the_budget() -> None:
    told = advise(config(), report(), ModelUse(latency_budget=2.0))
    assert "of a budget of 2 s: candidate 0.4 s (within it), baseline 2.5 s (above it)" in told


def test_prices_tell_when_training_has_paid_for_itself() -> None:
    """800 answers: baseline 500 and 100 tokens each, candidate 1000 and 100."""
    use = ModelUse(training_cost=40.0, prices=OWN_PRICES, requests_per_month=10_000)
    told = advise(config(), report(), use)
    assert "baseline costs 3 EUR per million tokens of prompts and 15 EUR per million of answers." in told
    assert "The tuned model costs 0.2 EUR per million tokens of prompts" in told
    saved = (3 * 500 + 15 * 100 - 0.2 * 1000 - 0.4 * 100) / 10**6
    assert f"a training of 40 EUR pays for itself after {40 / saved:,.0f} requests, in 1.4 months" in told
    assert "This assumes that the tuned model takes the tokens that candidate took here" in told


def test_a_dearer_model_never_pays_for_itself() -> None:
    dear = TokenPrices.model_validate({"prompt": "30", "completion": "30", "currency": "EUR"})
    told = advise(config(), report(), ModelUse(training_cost=40.0, prices=dear))
    assert "training does not pay for itself by price" in told
    foreign = TokenPrices.model_validate({"prompt": "0.2", "completion": "0.4", "currency": "USD"})
    assert "write them in one currency" in advise(
        config(), report(), ModelUse(training_cost=40.0, prices=foreign)
    )


def test_it_says_what_is_missing_to_say_more() -> None:
    told = advise(config({"name": "candidate"}, HOSTED), report(), ModelUse())
    assert (
        "To say more, write advice.examples, the examples at hand; advice.latencyBudgetSeconds; advice.trainingCost"
        in told
    )
    assert "candidate was shown no worked examples: measure it with fewShot too" in told
    everything = ModelUse(
        bar=0.9,
        examples=800,
        latency_budget=2.0,
        requests_per_month=10_000,
        training_cost=40.0,
        prices=OWN_PRICES,
    )
    assert "To say more" not in advise(config(), report(), everything)


def test_a_tuned_candidate_is_compared_with_the_bar_alone() -> None:
    sides = (TUNED, {"name": "baseline"})
    told = advise(
        config(*sides), report((0.8, 0.75, 0.85), (0.5, 0.45, 0.55)), ModelUse(bar=0.9, examples=900)
    )
    assert "candidate is tuned already: more data or another method may close the gap." in told
    assert "is worth it" not in told
    without = advise(config(*sides), report((0.8, 0.75, 0.85), (0.5, 0.45, 0.55)), ModelUse())
    assert "baseline's" not in without


def test_what_was_not_measured_gives_no_advice() -> None:
    empty = report().model_copy(update={"results": ()})
    assert advise(config(), empty, ModelUse(bar=0.9)) == "No advice: the metric of no gate was measured."


@pytest.mark.parametrize("bar", [0.0, None])
def test_numbers_at_the_edge_are_no_fault(bar: float | None) -> None:
    nothing = report((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    bare = nothing.model_copy(update={"usage": (), "suites": ()})
    use = ModelUse(
        bar=bar, examples=0, latency_budget=0.0, requests_per_month=1, training_cost=0.0, prices=OWN_PRICES
    )
    assert 0 < len(advise(config(), bare, use)) <= MAX_ADVICE
    assert 0 < len(advise(config(), nothing, use)) <= MAX_ADVICE
