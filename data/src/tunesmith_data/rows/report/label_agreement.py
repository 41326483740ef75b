"""Agreement of annotators as a document, and its thresholds.

Sources: Krippendorff, Content Analysis (2004), page 241, for alpha's thresholds; Landis and Koch, The Measurement
of Observer Agreement for Categorical Data (1977), for the words on kappa.
"""

from pydantic import Field

from tunesmith_contract.base import Digest, Document
from tunesmith_contract.report import Measured

MAX_DISPUTED = 20
MAX_ANNOTATORS = 100
MAX_PAIRS = 50

#: From here on labels are reliable.
RELIABLE_ALPHA = 0.8
#: From here on they allow tentative conclusions; below they don't.
TENTATIVE_ALPHA = 0.667

#: From which kappa on, in two decimals.
_KAPPA_WORDS = (
    (0.81, "almost perfect"),
    (0.61, "substantial"),
    (0.41, "moderate"),
    (0.21, "fair"),
    (0.0, "slight"),
)


class AnnotatorReport(Document):
    """Statistics of one annotator.

    Attributes:
        answers: items answered.
        skipped: items skipped.
        with_majority: share of the answers that are what most say, on items with two or more answers and no draw.
        share_of_a: share of A among the answers A and B.
    """

    name: str
    answers: int
    skipped: int = 0
    with_majority: Measured | None = None
    share_of_a: Measured | None = None


class PairReport(Document):
    """Agreement of two annotators on their shared items.

    Attributes:
        kappa: Cohen's kappa (Cohen 1960), for ratings with quadratic weights (Cohen 1968); None where it is undefined.
        agreement: share of the items on which they say the same.
    """

    first: str
    second: str
    items: int
    agreement: Measured
    kappa: Measured | None = None


class PositionBias(Document):
    """Position bias: preference for the answer shown first, whose order is random.

    Attributes:
        answers: answers A or B.
        share_of_a: share of A among them.
        p_value: two-sided binomial test of one half.
    """

    answers: int
    share_of_a: Measured
    p_value: Measured


class DisputedItem(Document):
    """Item on which annotators disagree.

    Attributes:
        answer_counts: number of votes for each answer.
        disagreement: share of pairs of answers that differ.
    """

    id: Digest
    file: str
    line: int
    excerpt: str
    answer_counts: dict[str, int]
    disagreement: Measured
    comments: tuple[str, ...] = ()

    @property
    def votes(self) -> str:
        """Votes as text: ``A by 2, B by 1``."""
        return ", ".join(f"{value} by {count}" for value, count in self.answer_counts.items())


class LabelAgreement(Document):
    """Agreement of annotators on shared items.

    Attributes:
        items: number of items with an answer.
        shared_items: number of items with two or more answers; agreement is measured on them.
        disputed_items: number of shared items with different answers.
        answers, skipped: number of answers and of skipped items, of all annotators.
        alpha: Krippendorff's alpha, nominal for choices and ordinal for ratings; None where it is undefined.
        alpha_low, alpha_high: 95 % bootstrap interval over items.
        agreement: mean share of pairs of answers to an item that are the same.
        verdict: a sentence.
        annotators: the most active first.
        pairs: those with the most items in common first.
        disputed: the most disputed first.
        rows: rows that came out, where there are any.
        left_out: items, or votes, that gave none, by reason.
    """

    items: int
    shared_items: int
    disputed_items: int = 0
    answers: int
    skipped: int
    values: dict[str, int] = Field(default_factory=dict)
    level: str
    alpha: Measured | None = None
    alpha_low: Measured | None = None
    alpha_high: Measured | None = None
    agreement: Measured | None = None
    verdict: str
    position_bias: PositionBias | None = None
    annotators: tuple[AnnotatorReport, ...] = Field((), max_length=MAX_ANNOTATORS)
    pairs: tuple[PairReport, ...] = Field((), max_length=MAX_PAIRS)
    disputed: tuple[DisputedItem, ...] = Field((), max_length=MAX_DISPUTED)
    rows: int | None = None
    left_out: dict[str, int] = Field(default_factory=dict)


def describe_alpha(alpha: float) -> str:
    """``reliable``, ``tentative`` or ``not reliable``."""
    if alpha >= RELIABLE_ALPHA:
        return "reliable"
    return "tentative" if alpha >= TENTATIVE_ALPHA else "not reliable"


def describe_kappa(kappa: float) -> str:
    """From ``almost perfect`` to ``slight``; ``poor`` is less than chance would give."""
    shown = round(kappa, 2)
    return next((words for least, words in _KAPPA_WORDS if shown >= least), "poor")
