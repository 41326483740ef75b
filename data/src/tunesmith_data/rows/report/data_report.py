"""Data report document (``report.json``): everything that prepare measured and found."""

from pydantic import Field

from tunesmith_contract.base import Document
from tunesmith_contract.report import Measured
from tunesmith_data.rows.findings import Example, Issue, RowPlace
from tunesmith_data.rows.table.record import RowSide

from .label_agreement import LabelAgreement

MAX_CLUSTERS = 50
MAX_CLUSTER_ROWS = 10
MAX_LEAKS = 100
MAX_WORST = 50
MAX_DROPPED = 100


class FileReport(Document):
    """A file that was read."""

    name: str
    format: str
    rows: int = 0
    refused: int = 0


class RowCounts(Document):
    """Number of rows per side; ``rows`` is the total."""

    rows: int
    train: int
    validation: int
    duplicates: int = 0
    near_duplicates: int = 0
    leaked: int = 0
    dropped: int = 0


class Histogram(Document):
    """Counts between edges; ``edges`` has one more than ``counts``, the last one inclusive."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    p50: float
    p95: float
    max: float
    total: int = 0


class Cluster(Document):
    """Cluster of duplicates or near duplicates; the first row is kept."""

    similarity: float = Field(ge=0, le=1, description="1: the same.")
    size: int
    rows: tuple[RowPlace, ...] = Field(max_length=MAX_CLUSTER_ROWS)
    excerpt: str


class Leak(Document):
    """Leaked row: a held-out set contains it exactly, nearly or as a passage.

    Attributes:
        row: place of the leaked row.
        side: set of the leaked row: training, or a separate validation set.
        held_out: the set's name: ``validation``, or that of a suite.
        kept: the row is kept, since most rows of the validation set are in the suite.
    """

    row: RowPlace
    side: RowSide = RowSide.TRAIN
    held_out: str
    other: RowPlace
    kind: str = Field(description="exact, near or passage.")
    similarity: float
    kept: bool = False
    excerpt: str = ""
    other_excerpt: str = ""


class HeldOutRows(Document):
    """A held-out set that training rows were compared with.

    Attributes:
        digest: digest of the rows, as ``rows_digest`` computes it.
    """

    name: str
    uri: str
    rows: int
    digest: str


class DroppedRow(Document):
    """Dropped row with the reasons."""

    place: RowPlace
    reasons: tuple[str, ...]
    excerpt: str = ""


class LearningCurve(Document):
    """Learning curve of a small model, with the expected effect of twice as many rows.

    Attributes:
        measure: what is measured, such as ``bits per character of held-out answers``.
        points: rows, and the mean error over repeats.
        fitted: the error that the fitted curve gives for each point's rows.
        now: the error with all rows.
        doubled: the error that the curve expects with twice the rows.
        verdict: a sentence.
    """

    measure: str
    points: tuple[tuple[int, Measured], ...]
    fitted: tuple[tuple[int, Measured], ...]
    now: Measured
    doubled: Measured
    verdict: str


class Recommendation(Document):
    """Recommended method and adapter.

    ``method`` and ``adapter`` are named as in a FineTuneJob; an ``adapter`` of None is full fine-tuning.
    """

    method: str
    summary: str
    reasons: tuple[str, ...]
    adapter: str | None = None


class TrainingEstimate(Document):
    """Estimated training effort; an order of magnitude.

    Attributes:
        steps: optimizer steps.
        seconds, gpu_hours, amount, currency, gpu: None if the GPU, or its price, is not given.
    """

    epochs: int
    batch_size: int
    steps: int
    tokens: int
    seconds: Measured | None = None
    gpu_hours: Measured | None = None
    amount: Measured | None = None
    currency: str | None = None
    gpu: str | None = None


class DataReport(Document):
    """Data report.

    Attributes:
        title: the job's name, or the file's.
        issues: most severe first.
        worst: the rows with the highest total issue score, highest first.
        held_out: sets whose rows must not be trained on.
        agreement: agreement of the people who labeled the rows; None if rows come from files.
    """

    title: str
    model: str
    method: str
    format: str
    digest: str
    files: tuple[FileReport, ...]
    counts: RowCounts
    truncated_rows: int = 0
    max_length: int = 0
    tokens: Histogram
    answer_characters: Histogram
    turns: Histogram
    issues: tuple[Issue, ...] = ()
    worst: tuple[Example, ...] = Field((), max_length=MAX_WORST)
    clusters: tuple[Cluster, ...] = Field((), max_length=MAX_CLUSTERS)
    leaks: tuple[Leak, ...] = Field((), max_length=MAX_LEAKS)
    held_out: tuple[HeldOutRows, ...] = ()
    dropped: tuple[DroppedRow, ...] = Field((), max_length=MAX_DROPPED)
    agreement: LabelAgreement | None = None
    learning_curve: LearningCurve | None = None
    recommendation: Recommendation | None = None
    estimate: TrainingEstimate | None = None
