"""Histograms of whole numbers."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_data.rows.report.histogram import MAX_BINS, build_histogram

lists = st.lists(st.integers(0, 2**40) | st.integers(0, 100), max_size=200)


@given(lists, st.integers(2, 40))
def test_every_value_is_counted_between_edges_that_rise(values: list[int], bins: int) -> None:
    histogram = build_histogram(np.array(values, dtype=np.int64), bins)
    assert sum(histogram.counts) == len(values)
    assert len(histogram.edges) == len(histogram.counts) + 1 <= bins + 1
    assert all(low < high for low, high in pairwise(histogram.edges))
    assert histogram.total == sum(values)
    for low, high, count in zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False):
        assert count == sum(low <= value < high for value in values)
    if values:
        assert {histogram.p50, histogram.p95, histogram.max} <= set(values)
        assert histogram.p50 <= histogram.p95 <= histogram.max == max(values)
        assert histogram.counts[0] and histogram.edges[0] <= min(values)


@given(lists.filter(bool))
def test_edges_are_round(values: list[int]) -> None:
    edges = build_histogram(np.array(values, dtype=np.int64)).edges
    step = int(edges[1] - edges[0]) if len(edges) > 2 else 0
    if step:
        assert str(step).rstrip("0") in {"1", "2", "5"}
        assert all(edge % step == 0 for edge in edges[:-1])


def test_nothing_and_one_value() -> None:
    empty = build_histogram(np.array([], dtype=np.int64))
    assert (empty.edges, empty.counts, empty.max, empty.total) == ((0, 1), (0,), 0, 0)
    one = build_histogram(np.array([37]))
    assert (one.edges, one.counts, one.p50, one.p95, one.max) == ((37, 38), (1,), 37, 37, 37)


def test_turns_get_a_bin_each() -> None:
    histogram = build_histogram(np.array([2, 2, 4, 6, 6, 6]))
    assert histogram.edges == (2, 3, 4, 5, 6, 7)
    assert histogram.counts == (2, 0, 1, 0, 3)


def test_a_long_tail_shares_the_last_bin() -> None:
    values = np.concatenate([np.arange(1000), [10**6]])
    histogram = build_histogram(values)
    assert histogram.edges[-1] == 10**6 + 1
    assert histogram.counts[-1] == 1
    assert len(histogram.counts) <= MAX_BINS
    assert histogram.edges[1] - histogram.edges[0] == 100


@pytest.mark.parametrize("kind", [np.int32, np.uint16, np.int64])
def test_totals_do_not_overflow(kind: type[np.integer]) -> None:
    values = np.full(70_000, 65_000, dtype=kind)
    assert build_histogram(values).total == 70_000 * 65_000
