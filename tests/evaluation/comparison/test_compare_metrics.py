"""Comparison of all sides: results, slices, missing scores, and evidence on gates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from tunesmith_contract.evaluation import Expect, Gate
from tunesmith_contract.report import GateProblem
from tunesmith_contract.shared_rules.verdict import Verdict, judge
from tunesmith_evaluation.comparison.compare_metrics import MAX_SLICES, ComparisonRules, compare_metrics
from tunesmith_evaluation.comparison.metric_scores import CorpusTerms, MetricScores
from tunesmith_evaluation.statistics.corpus import perplexity
from tunesmith_evaluation.statistics.kinds import ScoreKind

NAN = float("nan")


def scores(candidate: ArrayLike, baseline: ArrayLike, **other: Any) -> MetricScores:
    """Scores of 0 and 1 of two sides, unless told otherwise."""
    fields: dict[str, Any] = {"suite": "task", "metric": "ExactMatch", "kind": ScoreKind.BINARY} | other
    return MetricScores(values=np.array([candidate, baseline], float), **fields)


def gate(suite: str = "task", metric: str = "ExactMatch", **other: Any) -> Gate:
    """Better, unless told otherwise."""
    return Gate.model_validate({"suite": suite, "metric": metric, "expect": Expect.BETTER} | other)


def rules(*gates: Gate, skipped: Sequence[str] = ()) -> ComparisonRules:
    """Rules at 95 % that allow 5 % of broken items."""
    return ComparisonRules(0.95, 1, gates, {"task": 0.05, "other": 0.05}, skipped)


def test_results_hold_all_sides_and_the_paired_difference() -> None:
    values = np.array([[1, 1, 0, 1] * 10, [0, 1, 0, 1] * 10, [0, 0, 0, 1] * 10], float)
    (compared,), (found,) = compare_metrics(
        [MetricScores("task", "ExactMatch", ScoreKind.BINARY, values)], rules(gate())
    )
    result = compared.result
    assert (result.suite, result.metric, result.items) == ("task", "ExactMatch", 40)
    assert [side.value for side in result.scores] == [0.75, 0.5, 0.25]
    assert result.delta.value == 0.25
    assert result.delta.low > 0
    assert found.p_pass < 0.025
    assert (compared.outcomes.wins, compared.outcomes.losses, compared.outcomes.ties) == (10, 0, 30)
    assert compared.pairing is not None
    assert compared.pairing.factor > 1


def test_gates_without_a_measured_metric_never_pass() -> None:
    everything_better = scores([1] * 40, [0] * 40)
    gates = (gate(), gate(metric="Contains"), gate("other"), gate("left-out"))
    _, evidence = compare_metrics([everything_better], rules(*gates, skipped=["left-out"]))
    assert [found.problem for found in evidence] == [
        None,
        GateProblem.MISSING,
        GateProblem.MISSING,
        GateProblem.SKIPPED,
    ]
    judged = judge(gates, evidence, 0.95)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert [result.verdict for result in judged.gates] == [Verdict.PASS] + [Verdict.INCONCLUSIVE] * 3
    _, (empty,) = compare_metrics([scores([], [])], rules(gate()))
    assert empty.problem is GateProblem.MISSING


def test_items_without_scores_are_counted_and_too_many_never_pass() -> None:
    broken = scores([1] * 37 + [NAN] * 3, [0] * 39 + [NAN])
    assert (broken.items, broken.broken) == (40, 3)
    (compared,), (found,) = compare_metrics([broken], rules(gate()))
    assert compared.result.items == found.items == 37
    assert found.problem is GateProblem.TOO_MANY_BROKEN
    assert judge([gate()], [found], 0.95).verdict is Verdict.INCONCLUSIVE


def test_a_side_that_answered_nothing_is_compared_without_a_crash() -> None:
    (compared,), (found,) = compare_metrics([scores([NAN] * 30, [1] * 30)], rules(gate()))
    assert compared.result.items == 0
    assert compared.result.delta.low == -1
    assert found.problem is GateProblem.TOO_MANY_BROKEN
    assert found.p_pass > 0.5


@pytest.mark.parametrize("scored", [0, 1])
def test_a_side_without_measurements_is_compared_without_a_crash(scored: int) -> None:
    values = [2.0] * scored + [NAN] * (30 - scored)
    tokens = scores(values, [3.0] * 30, metric="Tokens", kind=ScoreKind.UNBOUNDED, higher_is_better=False)
    (compared,), (found,) = compare_metrics([tokens], rules(gate(metric="Tokens")))
    assert compared.result.items == scored
    assert found.problem is GateProblem.TOO_MANY_BROKEN
    assert (found.p_pass, found.p_fail) == (1, 1)


def test_repeated_answers_are_means_and_no_longer_0_or_1() -> None:
    (compared,), _ = compare_metrics([scores([1, 0.5, 0.75, 1] * 10, [0.25, 0.5, 0.5, 0] * 10)], rules())
    assert compared.result.delta.value == pytest.approx(0.5)


def test_scores_out_of_range_are_refused() -> None:
    wrong = scores([1.5, 0], [0, 1], kind=ScoreKind.UNIT_INTERVAL)
    with pytest.raises(ValueError, match=r"task/ExactMatch: scores have to be from 0 to 1, not 0 to 1\.5"):
        compare_metrics([wrong], rules())


def test_slices_show_where_the_difference_lies() -> None:
    columns = {"language": ["de", "en"] * 40, "id": [str(index) for index in range(80)]}
    (compared,), _ = compare_metrics([scores([1, 1] * 40, [0, 1] * 40, columns=columns)], rules())
    by_value = {(found.column, found.value): found.comparison for found in compared.slices}
    assert by_value["language", "de"].delta.value == 1
    assert by_value["language", "en"].delta.value == 0
    assert by_value["language", "de"].items == 40
    assert len(by_value) == 2 + MAX_SLICES
    assert compared.slices_left_out == 80 - MAX_SLICES


def test_perplexity_is_compared_over_the_whole_corpus() -> None:
    chance = np.random.default_rng(1)
    tokens = chance.integers(5, 50, 200).astype(float)
    nats = np.stack([tokens * chance.normal(mean, 0.2, 200) for mean in (1.8, 2.0)])
    terms = np.stack([nats, np.stack([tokens, tokens])], axis=-1)
    metric = scores(
        *(nats / tokens),
        metric="Perplexity",
        kind=ScoreKind.CORPUS,
        corpus=CorpusTerms(terms, perplexity),
        higher_is_better=False,
    )
    gates = gate(metric="Perplexity", relative_margin=0.05), gate(metric="Perplexity", relative_margin=0.3)
    (compared,), (lower, far_lower) = compare_metrics([metric], rules(*gates))
    assert compared.result.scores[0].value == pytest.approx(np.exp(nats[0].sum() / tokens.sum()))
    assert compared.result.delta.high < 0
    assert lower.p_pass < 0.001 < 0.9 < far_lower.p_pass
    assert lower.threshold == pytest.approx(-0.05 * compared.result.scores[1].value)


def test_a_known_bound_makes_values_without_one_comparable_at_any_number() -> None:
    chance = np.random.default_rng(2)
    tokens = chance.integers(20, 200, 30).astype(float)
    fields = {"metric": "Tokens", "kind": ScoreKind.UNBOUNDED, "higher_is_better": False}
    ask = gate(metric="Tokens")
    _, (unbounded,) = compare_metrics([scores(tokens * 0.3, tokens, **fields)], rules(ask))
    _, (bounded,) = compare_metrics([scores(tokens * 0.3, tokens, largest=256, **fields)], rules(ask))
    assert unbounded.problem is GateProblem.TOO_FEW_ITEMS
    assert bounded.problem is None
    assert bounded.p_pass < 0.025


@pytest.mark.parametrize("kind", [ScoreKind.UNBOUNDED, ScoreKind.CORPUS])
def test_without_bounds_an_item_that_only_the_candidate_lacks_lets_no_gate_pass(kind: ScoreKind) -> None:
    values = np.random.default_rng(1).uniform(1, 2, 200)
    lacking = np.where(np.arange(200) == 3, NAN, values)
    terms = np.stack([[values, np.ones(200)]] * 2).transpose(0, 2, 1)
    corpus = CorpusTerms(terms, perplexity) if kind is ScoreKind.CORPUS else None

    def problem(candidate: ArrayLike, baseline: ArrayLike) -> GateProblem | None:
        measured = scores(candidate, baseline, kind=kind, corpus=corpus, higher_is_better=False)
        not_worse = gate(expect=Expect.NOT_WORSE, margin=0.5)
        _, (found,) = compare_metrics([measured], rules(not_worse))
        return found.problem

    assert problem(lacking, values) is GateProblem.TOO_MANY_BROKEN
    assert problem(lacking, lacking) is problem(values, lacking) is problem(values, values) is None


@pytest.mark.parametrize("huge", [1e10, 1e300, float("inf")])
def test_scores_beyond_all_measure_are_refused_in_words(huge: float) -> None:
    values = [1.0] * 60 + [huge]
    beyond = scores(values, [1.0] * 61, metric="Latency", kind=ScoreKind.UNBOUNDED, higher_is_better=False)
    with pytest.raises(ValueError, match=r"task/Latency: scores have to be from -1e\+09 to 1e\+09"):
        compare_metrics([beyond], rules(gate(metric="Latency")))


@pytest.mark.parametrize(
    ("gates", "problem"),
    [
        ([gate(expect=Expect.NOT_WORSE, margin=0.1)], GateProblem.SAME_MODELS),
        ([gate(metric="Contains")], GateProblem.MISSING),
    ],
)
def test_a_model_compared_with_itself_passes_nothing(gates: list[Gate], problem: GateProblem) -> None:
    same = ComparisonRules(0.95, 1, gates, {"task": 0.05}, same_models=True)
    _, evidence = compare_metrics([scores([1] * 400, [1] * 400)], same)
    assert [found.problem for found in evidence] == [problem]
    assert judge(gates, evidence, 0.95).verdict is Verdict.INCONCLUSIVE
