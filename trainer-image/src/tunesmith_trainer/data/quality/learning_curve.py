"""Would more data help? How a small model's error falls with the rows it learns from, drawn out to twice as many."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith_trainer.data.report import LearningCurve

from .character_model import encode, learn
from .columns import Columns
from .numbers import Counts, Positions, Scores
from .samples import SampledRow
from .small_model import classifier, features, rows_for
from .views import Kind

#: Fewer rows show no curve.
FEWEST_ROWS = 64
_REPEATS = 4
_PARTS = (16, 8, 4, 2, 1)
_HELD_OUT = 0.2
#: Characters of answers that a model of characters learns from within seconds, and of each answer.
_MOST_CHARACTERS = 800_000
_CHARACTERS = 300
#: The smallest and largest exponent of a curve (Hestness et al. 2017 found 0.07 to 0.35; 1 is the limit of theory).
_EXPONENTS = (0.05, 1.0)
#: By what share twice as many rows lower the error, at least, when more data helps, and helps a little.
_HELPS, _HELPS_A_LITTLE = 0.10, 0.03
#: An error that falls by less than this hardly falls, whatever its share.
_SMALLEST_GAIN = 0.005

#: The error on the second rows of a model that has learned from the first ones.
Measure = Callable[[Positions, Positions], float]


@dataclass(frozen=True, slots=True)
class _Task:
    """What is learned of how many rows; ``what`` completes "the small model's …"."""

    what: str
    rows: int
    error: Measure


@dataclass(frozen=True, slots=True)
class _PowerLaw:
    """``floor + scale * rows ** -exponent`` (Hestness et al. 2017, arXiv:1712.00409)."""

    floor: float
    scale: float
    exponent: float

    def at(self, rows: float) -> float:
        return float(self.floor + self.scale * rows**-self.exponent)


def estimate_learning_curve(columns: Columns) -> LearningCurve | None:
    """The curve; None where there is nothing to learn, or where there are fewer than FEWEST_ROWS rows.

    Classes and judgements: how often a small model names the wrong one. Pairs: how often it prefers the wrong answer.
    All else: bits per character of held-out answers by a model of characters. A fifth of the rows is held out; curves
    are fitted to each of several divisions, and their spread is the uncertainty.
    """
    task = _task(columns)
    if task is None or task.rows < FEWEST_ROWS:
        return None
    sizes, errors = _measure(task)
    fits = [_fit(sizes, each) for each in errors]
    total = columns.rows
    gains = np.array([each.at(total) - each.at(2 * total) for each in fits])
    mean = _fit(sizes, errors.mean(axis=0))
    now, doubled = mean.at(total), mean.at(2 * total)
    return LearningCurve(
        measure=task.what,
        points=tuple((int(n), float(e)) for n, e in zip(sizes, errors.mean(axis=0), strict=True)),
        fitted=tuple((int(n), mean.at(n)) for n in sizes),
        now=now,
        doubled=doubled,
        verdict=_verdict(task.what, errors, gains, now, doubled),
    )


def _task(columns: Columns) -> _Task | None:
    if columns.class_task:
        named = "judgements" if columns.kind is Kind.JUDGED else "answers"
        task = columns.class_task
        error = _classification(task.features, task.labels)
        return _Task(f"share of {named} that a small model gets wrong", len(task.rows), error)
    rows = [row for row in columns.sample if row.answer]
    if len(rows) < FEWEST_ROWS or columns.kind is Kind.JUDGED:
        return None
    if columns.kind is Kind.PAIR:
        return _pairs(rows[: rows_for(2, [row.answer + row.rejected for row in rows])])
    what = "texts" if columns.kind is Kind.TEXT else "answers"
    return _characters([row.answer[:_CHARACTERS] for row in rows], what)


def _pairs(rows: list[SampledRow]) -> _Task:
    """Bradley and Terry's model: the difference of two answers' features says which is better."""
    both = features([row.answer for row in rows] + [row.rejected for row in rows])
    swapped = np.arange(len(rows)) % 2
    matrix = both[: len(rows)] - both[len(rows) :]
    matrix = matrix.multiply((1 - 2 * swapped)[:, None]).tocsr()
    return _Task(
        "share of pairs that a small model orders wrongly", len(rows), _classification(matrix, swapped)
    )


def _classification(matrix: Any, labels: Counts) -> Measure:
    def error(learned: Positions, held_out: Positions) -> float:
        if len(set(labels[learned].tolist())) == 1:
            return float((labels[held_out] != labels[learned[0]]).mean())
        model = classifier().fit(matrix[learned], labels[learned])
        return float((model.predict(matrix[held_out]) != labels[held_out]).mean())

    return error


def _characters(texts: list[str], what: str) -> _Task:
    ends = np.cumsum([len(text) + 1 for text in texts])
    texts = texts[: int(np.searchsorted(ends, _MOST_CHARACTERS, side="right"))]
    alphabet = len({character for text in texts for character in text}) + 1

    def error(learned: Positions, held_out: Positions) -> float:
        model = learn(encode([texts[each] for each in learned]), alphabet)
        return model.bits(encode([texts[each] for each in held_out]))

    return _Task(f"bits per character of held-out {what}", len(texts), error)


def _measure(task: _Task) -> tuple[Counts, Scores]:
    """Rows learned from, and the errors: repeats by sizes."""
    chance = np.random.default_rng(0)
    held_out = max(1, int(_HELD_OUT * task.rows))
    most = task.rows - held_out
    sizes = np.array([most // part for part in _PARTS])
    errors = []
    for _ in range(_REPEATS):
        order = chance.permutation(task.rows)
        errors.append([task.error(order[held_out : held_out + size], order[:held_out]) for size in sizes])
    return sizes, np.array(errors)


def _fit(sizes: Counts, errors: Scores) -> _PowerLaw:
    """The power law nearest to the errors: least squares, in units of the largest size."""
    from scipy.optimize import curve_fit

    def curve(n: Scores, floor: float, scale: float, exponent: float) -> Scores:
        return floor + scale * n**-exponent

    low, high = (0.0, 0.0, _EXPONENTS[0]), (np.inf, np.inf, _EXPONENTS[1])
    start = (0.5 * float(errors.min()), 0.5 * float(errors.min()) + 1e-6, 0.3)
    relative = sizes / sizes[-1]
    (floor, scale, exponent), _ = curve_fit(
        curve, relative, errors, p0=start, bounds=(low, high), max_nfev=5_000
    )
    return _PowerLaw(float(floor), float(scale * sizes[-1] ** exponent), float(exponent))


def _verdict(what: str, errors: Scores, gains: Scores, now: float, doubled: float) -> str:
    means = errors.mean(axis=0)
    noise = float(errors.std(axis=0, ddof=1).max() / np.sqrt(len(errors)))
    spread = 2 * float(gains.std(ddof=1)) / np.sqrt(len(gains))
    if means[-1] > means[0] + 2 * noise or spread > max(_HELPS * now, _SMALLEST_GAIN):
        return (
            f"With more rows the {what} does not fall steadily (from {means[0]:.3f} to {means[-1]:.3f}): "
            "whether more data would help can't be said."
        )
    return (
        f"Twice as many rows would lower the {what} from {now:.3f} to about {doubled:.3f} (± {spread:.3f}): "
        f"more data would {_help(now, now - doubled)}."
    )


def _help(now: float, gain: float) -> str:
    if gain < _SMALLEST_GAIN or gain < _HELPS_A_LITTLE * now:
        return "hardly help"
    return "help" if gain >= _HELPS * now else "help a little"
