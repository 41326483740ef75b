"""The data report: all that prepare found, as one document; ``report.json``, and what the page shows."""

from pydantic import Field

from tunesmith_contract.base import Document
from tunesmith_contract.report import Measured
from tunesmith_data.rows.findings import Example, Issue, Place
from tunesmith_data.rows.table.record import Side

from .label_agreement import Agreement

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


class Counts(Document):
    """What became of the rows: ``rows`` is the sum of all others."""

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
    """Rows that are the same, or nearly; the first is the one that is kept."""

    similarity: float = Field(ge=0, le=1, description="1: the same.")
    size: int
    rows: tuple[Place, ...] = Field(max_length=MAX_CLUSTER_ROWS)
    excerpt: str


class Leak(Document):
    """A row that a held-out set holds too, and how: the same, nearly the same, or a passage of it.

    Attributes:
        row: where it is written.
        side: what it is a row of: training, or a validation set of its own.
        held_out: the set's name: ``validation``, or that of a suite.
        kept: it stays in validation, which most of the suite is.
    """

    row: Place
    side: Side = Side.TRAIN
    held_out: str
    other: Place
    kind: str = Field(description="exact, near or passage.")
    similarity: float
    kept: bool = False
    excerpt: str = ""
    other_excerpt: str = ""


class Dropped(Document):
    """A row that was left out, and why."""

    place: Place
    reasons: tuple[str, ...]
    excerpt: str = ""


class LearningCurve(Document):
    """How a small model's error falls with the rows it learns from, and what twice as many would bring.

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
    """Which method and adapter suit what was found.

    ``method`` and ``adapter`` are named as in a FineTuneJob; an ``adapter`` of None is full fine-tuning.
    """

    method: str
    summary: str
    reasons: tuple[str, ...]
    adapter: str | None = None


class Estimate(Document):
    """What training will take, as far as it is known: an order of magnitude.

    Attributes:
        steps: optimizer steps.
        seconds, gpu_hours, amount, currency, gpu: None where nobody said which GPU, or what it costs.
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
    """All that prepare found.

    Attributes:
        title: the job's name, or the file's.
        issues: the gravest first.
        worst: the rows of which most is said, the worst first.
        agreement: of the people who labelled the rows; None where they come from files.
    """

    title: str
    model: str
    method: str
    format: str
    digest: str
    files: tuple[FileReport, ...]
    counts: Counts
    truncated_rows: int = 0
    max_length: int = 0
    tokens: Histogram
    answer_characters: Histogram
    turns: Histogram
    issues: tuple[Issue, ...] = ()
    worst: tuple[Example, ...] = Field((), max_length=MAX_WORST)
    clusters: tuple[Cluster, ...] = Field((), max_length=MAX_CLUSTERS)
    leaks: tuple[Leak, ...] = Field((), max_length=MAX_LEAKS)
    dropped: tuple[Dropped, ...] = Field((), max_length=MAX_DROPPED)
    agreement: Agreement | None = None
    learning_curve: LearningCurve | None = None
    recommendation: Recommendation | None = None
    estimate: Estimate | None = None
