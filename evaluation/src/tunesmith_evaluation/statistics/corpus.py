"""Statistics of whole corpora as functions of sums over items."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def mean(sums: Floats) -> Floats:
    """Mean, from the sum of values and their number.

    Args:
        sums: shape (..., 2): sum of the values, and their number.
    """
    return sums[..., 0] / sums[..., 1]


def perplexity(sums: Floats) -> Floats:
    """Exponential of the mean negative log likelihood per token.

    Args:
        sums: shape (..., 2): negative log likelihood in nats, and number of tokens.
    """
    return np.asarray(np.exp(mean(sums)))


def macro_f1(sums: Floats) -> Floats:
    """Mean of the F1 scores of all classes that were expected or predicted, as scikit-learn's.

    Args:
        sums: shape (..., 3 * classes): items of each class that are right, items predicted as it, items expected as it.
    """
    right, predicted, expected = np.split(sums, 3, axis=-1)
    size = predicted + expected
    scores = np.divide(2 * right, size, out=np.zeros_like(size, dtype=np.float64), where=size > 0)
    return np.asarray(scores.sum(axis=-1) / np.maximum((size > 0).sum(axis=-1), 1))


def macro_f1_swings(sums: Floats) -> tuple[Floats, Floats]:
    """How far one more group of items can move `macro_f1`, for each class: down, and up.

    Of a class with two items a single wrong answer takes a third of its F1 score, and a sample often holds none. So the
    answers seen do not tell how far the next one moves the statistic; the number of items of its class does.

    Down, so many right answers of the class become wrong as the largest group has; up, wrong ones become right. The
    wrong label is none, or the rarest other one, whichever moves more. A class that no item expects gets such items.

    Args:
        sums: sums of each group, shape (groups, 3 * classes).

    Returns:
        Changes of the statistic, at most 0 and at least 0, shape (classes,) each.
    """
    total = sums.sum(axis=0)
    right, predicted, expected = np.split(total, 3)
    largest = float(np.split(sums, 3, axis=1)[2].sum(axis=1).max())
    down, up = np.zeros(len(right)), np.zeros(len(right))
    for label in range(len(right)):
        others = np.arange(len(right)) != label
        rarest = _rarest(predicted + expected, others & (predicted + expected > 0))
        # The wrong answers that become right are those of the rarest label that has any.
        wrong = _rarest(predicted + expected, others & (predicted > right))
        if expected[label]:
            begin, lost, gained = (
                total,
                min(largest, right[label]),
                min(largest, expected[label] - right[label]),
            )
        else:
            # All of the items that it gets are right at first.
            begin, lost, gained = total.copy(), largest, 0.0
            begin[label :: len(right)] += largest
        worse = [_moved(begin, label, -lost), *(_moved(begin, label, -lost, other) for other in rarest)]
        better = [_moved(begin, label, gained)]
        better += [
            _moved(begin, label, min(gained, predicted[other] - right[other]), other) for other in wrong
        ]
        down[label] = min(0.0, macro_f1(np.array(worse)).min() - macro_f1(total))
        up[label] = max(0.0, macro_f1(np.array(better)).max() - macro_f1(total))
    return down, up


def _rarest(sizes: Floats, of: NDArray[np.bool_]) -> list[int]:
    """The label with the least size among some; none if there are none."""
    return [int(np.argmin(np.where(of, sizes, np.inf)))] if of.any() else []


def _moved(total: Floats, label: int, count: float, other: int | None = None) -> Floats:
    """Sums of `macro_f1` after so many answers became this label, which was right, in place of another one or none."""
    moved, classes = total.copy(), len(total) // 3
    moved[[label, classes + label]] += count
    if other is not None:
        moved[classes + other] -= count
    return moved


def macro_f1_terms(predicted: NDArray[np.int64], expected: NDArray[np.int64], classes: int) -> Floats:
    """Terms of each item in the sums of `macro_f1`, shape (items, 3 * classes).

    Args:
        predicted: class of each answer; negative where it is none of the classes.
        expected: class of each item.
        classes: number of classes.
    """
    names = np.arange(classes)
    is_predicted = predicted[:, np.newaxis] == names
    is_expected = expected[:, np.newaxis] == names
    return np.hstack([is_predicted & is_expected, is_predicted, is_expected]).astype(np.float64)
