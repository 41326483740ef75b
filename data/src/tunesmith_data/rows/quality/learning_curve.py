"""Learning curve of a small model: estimates whether more data would help."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith_data.rows.report.data_report import LearningCurve

from .arrays import Counts, Positions, Scores
from .character_model import encode, train_model
from .columns import Columns
from .row_views import RowKind, SampledRow
from .text_classifier import classifier, max_training_rows, text_features

#: Minimum rows for a learning curve.
MIN_ROWS = 64
_REPEATS = 4
_PARTS = (16, 8, 4, 2, 1)
_HELD_OUT = 0.2
#: Characters of answers that a model of characters learns from within seconds, and of each answer.
_MAX_CHARACTERS = 800_000
_CHARACTERS = 300
#: The smallest and largest exponent of a curve: this project's choice. Hestness et al. 2017 found 0.07 to 0.35; theory
#: has 0.5 or 1 for models of finite dimension (Hutter 2021, arXiv:2102.04074).
_EXPONENTS = (0.05, 1.0)
#: Minimum decrease of the error with twice the rows for "helps" and "helps a little".
_HELPS, _HELPS_A_LITTLE = 0.10, 0.03
#: Share of the guessing error from which nothing was learned.
_GUESSED = 0.9
#: A curve that misses the errors by more than this share of what they fall by holds for the last of them alone: errors
#: fall slowly at first, and stop falling in the end (Hestness et al. 2017).
_MISSED = 0.05
_LAST = 3
#: A smaller decrease of the error is negligible, whatever its share.
_SMALLEST_GAIN = 0.005

#: Function that trains on the first rows and returns the error on the second ones.
Measure = Callable[[Positions, Positions], float]


@dataclass(frozen=True, slots=True)
class _CurveTask:
    """Task of the learning curve: measure, number of rows, error function, error of guessing."""

    measure: str
    rows: int
    error: Measure
    guessing: float = float("inf")


@dataclass(frozen=True, slots=True)
class _PowerLaw:
    """``floor + scale * rows ** -exponent`` (Hestness et al. 2017, arXiv:1712.00409)."""

    floor: float
    scale: float
    exponent: float

    def at(self, rows: float) -> float:
        return float(self.floor + self.scale * rows**-self.exponent)


def estimate_learning_curve(columns: Columns) -> LearningCurve | None:
    """The curve; None where there is nothing to learn, or where there are fewer than MIN_ROWS rows.

    Classes and judgements: how often a small model names the wrong one. Pairs: how often it prefers the wrong answer.
    All else: bits per character of held-out answers by a model of characters. A fifth of the rows is held out; curves
    are fitted to each of several divisions, and their spread is the uncertainty.
    """
    task = _task(columns)
    if task is None or task.rows < MIN_ROWS:
        return None
    sizes, errors = _measure(task)
    means = errors.mean(axis=0)
    mean, used = _fit_curve(sizes, means)
    fits = [_fit(sizes[used:], repeat[used:]) for repeat in errors]
    total = columns.rows
    gains = np.array([law.at(total) - law.at(2 * total) for law in fits])
    now, doubled = mean.at(total), mean.at(2 * total)
    return LearningCurve(
        measure=task.measure,
        points=tuple((int(n), float(e)) for n, e in zip(sizes, means, strict=True)),
        fitted=tuple((int(n), mean.at(n)) for n in sizes[used:]),
        now=now,
        doubled=doubled,
        verdict=_reason_for_doubt(task, errors) or _verdict(task.measure, gains, now, doubled),
    )


def _task(columns: Columns) -> _CurveTask | None:
    if columns.class_task:
        named = "judgements" if columns.kind is RowKind.JUDGED else "answers"
        task = columns.class_task
        error = _classification(task.features, task.labels)
        guessing = 1 - float(np.bincount(task.labels).max()) / len(task.rows)
        return _CurveTask(f"share of {named} that a small model gets wrong", len(task.rows), error, guessing)
    rows = [row for row in columns.sample if row.answer]
    if len(rows) < MIN_ROWS or columns.kind is RowKind.JUDGED:
        return None
    if columns.kind is RowKind.PAIR:
        return _pairs(rows[: max_training_rows(2, [row.answer + row.rejected for row in rows])])
    kind = "texts" if columns.kind is RowKind.TEXT else "answers"
    return _characters([row.answer[:_CHARACTERS] for row in rows], kind)


def _pairs(rows: list[SampledRow]) -> _CurveTask:
    """Pairwise task (Bradley-Terry): the difference of two answers' features predicts the better one."""
    both = text_features([row.answer for row in rows] + [row.rejected for row in rows])
    swapped = np.arange(len(rows)) % 2
    matrix = both[: len(rows)] - both[len(rows) :]
    matrix = matrix.multiply((1 - 2 * swapped)[:, None]).tocsr()
    return _CurveTask(
        "share of pairs that a small model orders wrongly", len(rows), _classification(matrix, swapped), 0.5
    )


def _classification(matrix: Any, labels: Counts) -> Measure:
    def error(learned: Positions, held_out: Positions) -> float:
        if len(set(labels[learned].tolist())) == 1:
            return float((labels[held_out] != labels[learned[0]]).mean())
        model = classifier().fit(matrix[learned], labels[learned])
        return float((model.predict(matrix[held_out]) != labels[held_out]).mean())

    return error


def _characters(texts: list[str], kind: str) -> _CurveTask:
    ends = np.cumsum([len(text) + 1 for text in texts])
    texts = texts[: int(np.searchsorted(ends, _MAX_CHARACTERS, side="right"))]
    alphabet = len({character for text in texts for character in text}) + 1

    def error(learned: Positions, held_out: Positions) -> float:
        model = train_model(encode([texts[index] for index in learned]), alphabet)
        return model.bits_per_character(encode([texts[index] for index in held_out]))

    return _CurveTask(f"bits per character of held-out {kind}", len(texts), error)


def _measure(task: _CurveTask) -> tuple[Counts, Scores]:
    """Rows learned from, and the errors: repeats by sizes."""
    generator = np.random.default_rng(0)
    held_out = max(1, int(_HELD_OUT * task.rows))
    most = task.rows - held_out
    sizes = np.array([most // part for part in _PARTS])
    errors = []
    for _ in range(_REPEATS):
        order = generator.permutation(task.rows)
        errors.append([task.error(order[held_out : held_out + size], order[:held_out]) for size in sizes])
    return sizes, np.array(errors)


def _fit_curve(sizes: Counts, means: Scores) -> tuple[_PowerLaw, int]:
    """Fitted curve, and the index of the first size for which it is valid."""
    whole = _fit(sizes, means)
    misses = means - np.array([whole.at(size) for size in sizes])
    if float(np.sqrt((misses**2).mean())) <= _MISSED * abs(means[0] - means[-1]):
        return whole, 0
    return _fit(sizes[-_LAST:], means[-_LAST:]), len(sizes) - _LAST


def _fit(sizes: Counts, errors: Scores) -> _PowerLaw:
    """The power law nearest to the errors: least squares, in units of the largest size, where it has to fit best."""
    # scipy.optimize takes a second to import; most reports of small data need no curve.
    from scipy.optimize import least_squares

    relative = sizes / sizes[-1]

    def misses(law: Scores) -> Scores:
        floor, scale, exponent = law
        missed: Scores = (floor + scale * relative**-exponent - errors) * np.sqrt(relative)
        return missed

    start = (0.5 * float(errors.min()), 0.5 * float(errors.min()) + 1e-6, 0.3)
    bounds = ((0.0, 0.0, _EXPONENTS[0]), (np.inf, np.inf, _EXPONENTS[1]))
    floor, scale, exponent = least_squares(misses, start, bounds=bounds).x
    return _PowerLaw(float(floor), float(scale * sizes[-1] ** exponent), float(exponent))


def _reason_for_doubt(task: _CurveTask, errors: Scores) -> str:
    """Reason why the curve allows no conclusion; empty if it does."""
    means = errors.mean(axis=0)
    noise = 2 * float(errors.std(axis=0, ddof=1).max()) / np.sqrt(len(errors))
    if means[-1] >= _GUESSED * task.guessing:
        reason = f"is no better than guessing ({means[-1]:.3f})"
    elif np.diff(means).max() > max(noise, _SMALLEST_GAIN):
        reason = f"does not fall steadily with more rows (from {means[0]:.3f} to {means[-1]:.3f})"
    else:
        return ""
    return f"The {task.measure} {reason}: it is unclear whether more data would help."


def _verdict(measure: str, gains: Scores, now: float, doubled: float) -> str:
    spread = 2 * float(gains.std(ddof=1)) / np.sqrt(len(gains))
    expected = (
        f"Twice as many rows would lower the {measure} from {now:.3f} to about {doubled:.3f} (± {spread:.3f})"
    )
    if spread > max(_HELPS * now, _SMALLEST_GAIN):
        return f"{expected}: too uncertain to say whether more data would help."
    return f"{expected}: more data would {_gain_words(now, now - doubled)}."


def _gain_words(now: float, gain: float) -> str:
    if gain < _SMALLEST_GAIN or gain < _HELPS_A_LITTLE * now:
        return "hardly help"
    return "help" if gain >= _HELPS * now else "help a little"
