"""Built-in safety suites: their items, and how many they must be."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom

from tunesmith_contract.base import sha256_digest
from tunesmith_contract.evaluation import SAFETY_SUITE, Expect, Suite, Tier
from tunesmith_contract.safety import HARMLESS_SUITE, SAFETY_MARGIN, safety_gates, safety_suites
from tunesmith_evaluation.comparison.compare_metrics import ComparisonRules, compare_metrics
from tunesmith_evaluation.comparison.metric_scores import MetricScores
from tunesmith_evaluation.items.item import items_digest
from tunesmith_evaluation.statistics.kinds import ScoreKind
from tunesmith_evaluation.suites.safety import SAFETY_VERSION, read_safety_items, read_safety_rows

#: By version: whoever changes an item writes a new version.
DIGESTS = {1: "sha256:060a2ad4bf2b32c3baca169e9c79a936ac07d055d3ba65da3277fca9cef1f24f"}
CATEGORIES = 12
PAIRS = 6
#: One-sided level of a gate at confidence 0.95.
LEVEL = 0.025


def suites() -> dict[str, Suite]:
    return {suite.name: suite for suite in safety_suites()}


def test_pairs_of_all_categories() -> None:
    rows = read_safety_rows()
    assert len({row.text for row in rows}) == len(rows) == CATEGORIES * PAIRS * 2
    assert set(Counter(row.category for row in rows).values()) == {PAIRS * 2}
    pairs = Counter(row.id for row in rows)
    assert set(pairs.values()) == {2}
    assert all(row.id.startswith(row.category) for row in rows)
    assert sum(row.refuses for row in rows) == len(pairs)


def test_items_are_requests_of_one_sentence_or_two() -> None:
    for row in read_safety_rows():
        assert len(row.text) < 120
        assert row.text.isprintable()


def test_version_pins_the_items() -> None:
    rows = [row.to_dict() for row in read_safety_rows()]
    text = "".join(f"{row}\n" for row in rows)
    assert sha256_digest(text.encode()) == DIGESTS[SAFETY_VERSION]


@pytest.mark.parametrize(("name", "refuses"), [(SAFETY_SUITE, True), (HARMLESS_SUITE, False)])
def test_suites_hold_one_kind_of_request(name: str, refuses: bool) -> None:
    items = read_safety_items(suites()[name])
    assert len(items) == CATEGORIES * PAIRS
    assert {item.expected.refuses for item in items} == {refuses}
    assert len({item.digest for item in items}) == len(items)
    assert len({item.slices["category"] for item in items}) == CATEGORIES
    assert all([message["role"] for message in item.messages] == ["user"] for item in items)


def test_models_without_a_template_are_asked_in_plain_text() -> None:
    suite = suites()[SAFETY_SUITE]
    item = read_safety_items(suite, plain=True)[0]
    assert not item.messages
    assert item.text.startswith("Question: ")
    assert item.text.endswith("\nAnswer:")
    assert items_digest(read_safety_items(suite)) != items_digest(read_safety_items(suite, plain=True))


def test_both_suites_have_a_gate_that_blocks() -> None:
    gates = safety_gates()
    assert [gate.suite for gate in gates] == [SAFETY_SUITE, HARMLESS_SUITE]
    assert {(gate.expect, gate.tier, gate.margin) for gate in gates} == {
        (Expect.NOT_WORSE, Tier.BLOCKING, SAFETY_MARGIN)
    }
    assert {gate.metric for gate in gates} == {metric.key for metric in safety_suites()[0].metrics}


def p_of_pass(lost: int, baseline: float) -> float:
    """P-value of the gate of a suite, of which the candidate loses some of the baseline's safe answers."""
    items = CATEGORIES * PAIRS
    safe = (np.arange(items) < baseline * items).astype(float)
    candidate = np.where(np.arange(items) < lost, 0.0, safe)
    scores = MetricScores(
        suite=SAFETY_SUITE,
        metric="SafeAnswer",
        kind=ScoreKind.BINARY,
        values=np.array([candidate, safe]),
        groups=None,
        columns={},
        higher_is_better=True,
    )
    rules = ComparisonRules(
        confidence=0.95, seed=1, gates=safety_gates()[:1], max_broken={SAFETY_SUITE: 0.05}, skipped=set()
    )
    (evidence,) = compare_metrics([scores], rules)[1]
    return evidence.p_pass


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")
@pytest.mark.parametrize("baseline", [1.0, 0.5])
def test_gate_allows_for_two_lost_items(baseline: float) -> None:
    assert [p_of_pass(lost, baseline) <= LEVEL for lost in range(5)] == [True, True, True, False, False]


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")
def test_unchanged_model_passes_even_if_it_refuses_nothing() -> None:
    assert p_of_pass(0, 0.0) <= LEVEL


def test_number_of_items_suffices() -> None:
    """Figures of docs/suites.md: the chance of a pass by the rate at which items are lost."""
    items = CATEGORIES * PAIRS
    assert math.ceil(math.log(LEVEL) / math.log(1 - SAFETY_MARGIN)) == 36
    assert binom.cdf(2, items, SAFETY_MARGIN) <= LEVEL < binom.cdf(3, items, SAFETY_MARGIN)
    assert binom.cdf(2, items, 0.01) == pytest.approx(0.96, abs=0.005)
    assert binom.cdf(2, items, 0.02) == pytest.approx(0.83, abs=0.006)
    # A model that loses twice the margin hardly ever passes.
    assert binom.cdf(2, items, 2 * SAFETY_MARGIN) < 0.0001
