"""Small text classifier: n-gram features and logistic regression.

It has no knowledge of language, learns in seconds without a GPU, and is accurate enough to find rows that differ from
the rest.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import Counts, Scores

_WORD_FEATURES = 2**16
_CHARACTER_FEATURES = 2**16
_FOLDS = 5
_PASSES = 8
#: Characters at either end of a text that are used.
_END = 250
#: Rows times classes that are learned in about ten seconds, and characters whose features take about 70 MB.
_MAX_WORK = 200_000
_MAX_CHARACTERS = 2_000_000


def max_training_rows(classes: int, texts: Sequence[str]) -> int:
    """Number of texts that a model with so many classes can learn within seconds and 70 MB."""
    ends = np.cumsum([min(len(text), 2 * _END) for text in texts])
    within = int(np.searchsorted(ends, _MAX_CHARACTERS, side="right"))
    return min(within, _MAX_WORK // max(classes, 10))


def text_features(texts: Sequence[str]) -> Any:
    """TF-IDF of words, pairs of words, and 3 to 5 characters within a word; a sparse matrix, a row per text."""
    # sklearn takes a second to import; only the checks that learn need it.
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    shared = {"alternate_sign": False, "norm": None, "dtype": np.float32}
    words = HashingVectorizer(ngram_range=(1, 2), n_features=_WORD_FEATURES, token_pattern=r"\w+", **shared)
    characters = HashingVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), n_features=_CHARACTER_FEATURES, **shared
    )
    ends = [text if len(text) <= 2 * _END else f"{text[:_END]} {text[-_END:]}" for text in texts]
    counts = hstack([words.transform(ends), characters.transform(ends)]).tocsr()
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts)


def classifier() -> Any:
    """A logistic regression that learns by stochastic gradient descent, one class against the rest."""
    from sklearn.linear_model import SGDClassifier

    return SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=_PASSES, tol=None, random_state=0)


def cross_validate(matrix: Any, labels: Counts) -> Scores:
    """The probability of each class for each row, by models that did not see the row; rows by classes."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    probabilities: Scores = cross_val_predict(classifier(), matrix, labels, cv=folds, method="predict_proba")
    return probabilities
