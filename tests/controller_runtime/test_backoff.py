"""Delays between retries: growing, bounded, endless, and spread by their jitter."""

import itertools
import random

import pytest

from tunesmith.controller_runtime.backoff import Backoff


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(first=0.1, longest=1.0, jitter=lambda: 1.0)
    assert [backoff.seconds(failures) for failures in range(5)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])
    assert backoff.seconds(10**6) == 1.0


def test_a_seeded_jitter_spreads_delays_over_the_upper_half() -> None:
    backoff = Backoff(first=0.25, longest=30.0, jitter=random.Random(7).random)
    delays = list(itertools.islice(backoff, 2000))
    bounds = [min(30.0, 0.25 * 2.0 ** min(failures, 32)) for failures in range(2000)]
    assert all(bound / 2 <= delay <= bound for delay, bound in zip(delays, bounds, strict=True))
    late = [delay for delay, bound in zip(delays, bounds, strict=True) if bound == 30.0]
    assert min(late) < 16
    assert max(late) > 29
    assert len(set(late)) == len(late)
    again = Backoff(first=0.25, longest=30.0, jitter=random.Random(7).random)
    assert list(itertools.islice(again, 2000)) == delays
