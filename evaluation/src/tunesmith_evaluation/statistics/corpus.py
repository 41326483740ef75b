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
