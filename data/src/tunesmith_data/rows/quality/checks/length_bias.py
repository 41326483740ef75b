"""Check ``length_bias``: better answers that are longer, or shorter, than worse ones."""

from collections.abc import Iterator

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity
from tunesmith_data.rows.quality.arrays import Counts, Positions, Scores
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import IssueDraft, percent
from tunesmith_data.rows.quality.quality_check import ColumnCheck
from tunesmith_data.rows.quality.row_views import RowKind

_MIN_ROWS = 50
#: Share of pairs from which length alone predicts the better answer; 0.5 is no bias.
_NOTED, _WARNED = 0.65, 0.75
_P_VALUE = 0.001


class LengthBias(ColumnCheck):
    """``length_bias``: the better answer is the longer one far more often than not, or the shorter one.

    Of pairs: the share of them, Wilcoxon's signed-rank test, and Cohen's d of the paired differences of log lengths. Of
    judged answers: the probability that a good one is longer than a bad one, and the test of Mann and Whitney. Models
    learn length in the place of quality (Singhal et al. 2023, arXiv:2310.03716; Park et al. 2024, arXiv:2403.19159).
    """

    def finish(self, columns: Columns) -> Iterator[IssueDraft]:
        """Issue drafts from the columns."""
        if columns.kind is RowKind.PAIR and columns.rows >= _MIN_ROWS:
            yield from _of_pairs(columns)
        elif columns.kind is RowKind.JUDGED:
            yield from _of_judged(columns)


def _of_pairs(columns: Columns) -> Iterator[IssueDraft]:
    # scipy.stats takes a second to import; only these checks need it.
    from scipy.stats import wilcoxon

    chosen, rejected = columns.answer_characters, columns.rejected_characters
    unequal = np.flatnonzero(chosen != rejected)
    if len(unequal) < _MIN_ROWS:
        return
    differences = np.log((1 + chosen[unequal]) / (1 + rejected[unequal]))
    longer = float((differences > 0).mean())
    share = max(longer, 1 - longer)
    p_value = float(wilcoxon(differences, method="asymptotic").pvalue)
    if share < _NOTED or p_value > _P_VALUE:
        return
    effect = float(differences.mean() / differences.std()) if differences.std() else float("inf")
    word = "longer" if longer > 0.5 else "shorter"
    count = int((chosen > rejected).sum() if longer > 0.5 else (chosen < rejected).sum())
    message = (
        f"the chosen answer is {word} in {count:,} of {columns.rows:,} pairs ({percent(count / columns.rows)}; "
        f"Cohen's d {abs(effect):.1f}, p {_p_text(p_value)})"
    )
    biased = np.flatnonzero(chosen > rejected if longer > 0.5 else chosen < rejected)
    yield _draft(columns, message, share, biased, np.abs(np.log((1 + chosen) / (1 + rejected)))[biased])


def _of_judged(columns: Columns) -> Iterator[IssueDraft]:
    from scipy.stats import mannwhitneyu

    lengths, is_good = columns.answer_characters, columns.label == 1
    good, bad = lengths[is_good], lengths[~is_good]
    if min(len(good), len(bad)) < _MIN_ROWS // 2:
        return
    test = mannwhitneyu(good, bad, method="asymptotic")
    longer = float(test.statistic) / (len(good) * len(bad))
    share = max(longer, 1 - longer)
    if share < _NOTED or test.pvalue > _P_VALUE:
        return
    word = "longer" if longer > 0.5 else "shorter"
    message = (
        f"a good answer is {word} than a bad one in {percent(share)} of all comparisons "
        f"(median {_median(good)} and {_median(bad)} characters, p {_p_text(float(test.pvalue))})"
    )
    middle = float(np.median(lengths))
    biased = np.flatnonzero(
        (is_good == (lengths > middle)) if longer > 0.5 else (is_good == (lengths < middle))
    )
    yield _draft(columns, message, share, biased, np.abs(np.log((1 + lengths) / (1 + middle)))[biased])


def _draft(columns: Columns, message: str, share: float, biased: Positions, far: Scores) -> IssueDraft:
    flagged = columns.rank(biased, far / max(1e-9, far.max()))
    return IssueDraft(
        check="length_bias",
        severity=Severity.WARNING if share >= _WARNED else Severity.NOTE,
        message=message,
        advice="add pairs of like length, or ones where the other length wins; compare answers of models by length too",
        flagged=flagged,
        details={
            int(position): _lengths(columns, int(position)) for position in flagged.positions[:MAX_EXAMPLES]
        },
    )


def _lengths(columns: Columns, position: int) -> str:
    characters = f"{columns.answer_characters[position]:,}"
    if columns.kind is RowKind.PAIR:
        return f"chosen {characters}, rejected {columns.rejected_characters[position]:,} characters"
    return f"judged {'good' if columns.label[position] else 'bad'}, {characters} characters"


def _median(lengths: Counts) -> str:
    return f"{np.median(lengths):,.0f}"


def _p_text(p_value: float) -> str:
    return f"{p_value:.0e}" if p_value >= 1e-12 else "< 1e-12"
