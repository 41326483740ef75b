"""Data reports: a rich one, as a careless set of support conversations would give, and the largest there can be."""

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Example, Issue, RowPlace, Severity
from tunesmith_data.rows.report.data_report import (
    MAX_CLUSTER_ROWS,
    MAX_CLUSTERS,
    MAX_DROPPED,
    MAX_LEAKS,
    MAX_WORST,
    Cluster,
    DataReport,
    DroppedRow,
    FileReport,
    Histogram,
    Leak,
    LearningCurve,
    Recommendation,
    RowCounts,
    TrainingEstimate,
)
from tunesmith_data.rows.report.histogram import build_histogram
from tunesmith_data.rows.report.label_agreement import (
    MAX_ANNOTATORS,
    MAX_DISPUTED,
    MAX_PAIRS,
    AnnotatorReport,
    DisputedItem,
    LabelAgreement,
    PairReport,
    PositionBias,
)
from tunesmith_data.rows.table.record import RowSide

#: What a row may hold to harm whoever looks at it.
HOSTILE = (
    "<script>window.harmed = 1; document.title = 'harmed'</script>",
    '<img src=http://192.0.2.1/x.png onerror="window.harmed = 2">',
    "</style></script><style>body{display:none}</style><iframe src='http://192.0.2.1/'></iframe>",
    "{{ 7 * 7 }}{% raw %} javascript:alert(1)",
)

_DIGEST = "sha256:" + "5e" * 32


def place(line: int, file: str = "support-2026.jsonl", member: str = "") -> RowPlace:
    """A line of a file."""
    return RowPlace(file=file, line=line, member=member)


def make_report(**changes: object) -> DataReport:
    """A report with something in every part of it, hostile rows among the rest."""
    chance = np.random.default_rng(7)
    tokens = np.minimum(chance.lognormal(5.6, 0.55, 11_000).astype(int) + 12, 2600)
    report = DataReport(
        title="support-2026.jsonl",
        model="HuggingFaceTB/SmolLM2-1.7B-Instruct",
        method="sft",
        format="Chat",
        digest=_DIGEST,
        files=(
            FileReport(name="support-2026.jsonl", format="Chat, JSON Lines", rows=11_480, refused=92),
            FileReport(name="escalations.csv.gz", format="PromptCompletion, CSV", rows=1_000, refused=4),
        ),
        counts=RowCounts(
            rows=12_480,
            train=9_874,
            validation=1_126,
            duplicates=843,
            near_duplicates=402,
            leaked=139,
            dropped=96,
        ),
        truncated_rows=212,
        max_length=1024,
        tokens=build_histogram(tokens),
        answer_characters=build_histogram(chance.lognormal(5.9, 0.8, 11_000).astype(int)),
        turns=build_histogram(chance.choice([2, 2, 2, 4, 4, 6, 8], 11_000)),
        issues=tuple(_issues()),
        worst=tuple(_worst()),
        clusters=tuple(_clusters()),
        leaks=tuple(_leaks()),
        dropped=tuple(_dropped()),
        agreement=make_agreement(),
        learning_curve=_curve(),
        recommendation=_recommendation(),
        estimate=_estimate(),
    )
    return report.model_copy(update=changes)


def make_clean_report() -> DataReport:
    """A report of data with which nothing is wrong, and of which nothing was estimated."""
    return make_report(
        counts=RowCounts(rows=1000, train=900, validation=100),
        truncated_rows=0,
        issues=(),
        worst=(),
        clusters=(),
        leaks=(),
        dropped=(),
        agreement=None,
        learning_curve=None,
        recommendation=None,
        estimate=None,
    )


def make_largest_report(character: str) -> DataReport:
    """As much of everything as the report may hold, every text of one character."""
    long = character * 2000
    example = Example(
        place=place(10**9, long[:255], long[:255]),
        excerpt=long[:240],
        detail=long[:240],
        other=place(10**9, long[:255], long[:255]),
        other_excerpt=long[:240],
        score=0.5,
    )
    issue = Issue(
        check=long[:40],
        severity=Severity.WARNING,
        rows=10**9,
        message=long,
        advice=long,
        examples=(example,) * MAX_EXAMPLES,
    )
    leak = Leak(
        row=example.place,
        held_out=long[:32],
        other=example.place,
        kind="near",
        similarity=0.9,
        excerpt=long[:240],
        other_excerpt=long[:240],
    )
    cluster = Cluster(
        similarity=0.9, size=10**6, rows=(example.place,) * MAX_CLUSTER_ROWS, excerpt=long[:240]
    )
    return make_report(
        title=long,
        model=long,
        files=(FileReport(name=long[:255], format=long[:255], rows=1),) * 5000,
        issues=(issue,) * 200,
        worst=(example,) * MAX_WORST,
        clusters=(cluster,) * MAX_CLUSTERS,
        leaks=(leak,) * MAX_LEAKS,
        dropped=(DroppedRow(place=example.place, reasons=(long,) * 20, excerpt=long[:240]),) * MAX_DROPPED,
        tokens=_widest_histogram(),
        agreement=_largest_agreement(long),
    )


def make_agreement() -> LabelAgreement:
    """Of three people who prefer one of two answers, not alike; one hostile to whoever reads their comments."""
    return LabelAgreement(
        items=240,
        shared_items=120,
        disputed_items=31,
        answers=412,
        skipped=9,
        values={"A": 236, "B": 148, "tie": 28},
        level="nominal",
        alpha=0.47,
        alpha_low=0.36,
        alpha_high=0.58,
        agreement=0.71,
        verdict="Krippendorff's alpha is 0.47 (95 % interval 0.36 to 0.58) on 120 shared items: the labels are not "
        "reliable; make the guidelines clearer and label the disputed items again.",
        position_bias=PositionBias(answers=384, share_of_a=0.615, p_value=8e-6),
        annotators=(
            AnnotatorReport(name="anna", answers=200, skipped=1, with_majority=0.91, share_of_a=0.52),
            AnnotatorReport(name="ben", answers=152, skipped=8, with_majority=0.84, share_of_a=0.55),
            AnnotatorReport(name=HOSTILE[0], answers=60, with_majority=0.4, share_of_a=0.97),
        ),
        pairs=(
            PairReport(first="anna", second="ben", items=100, agreement=0.82, kappa=0.63),
            PairReport(first="anna", second=HOSTILE[0], items=40, agreement=0.45, kappa=-0.04),
            PairReport(first="ben", second=HOSTILE[0], items=12, agreement=1, kappa=None),
        ),
        disputed=(
            DisputedItem(
                id=_DIGEST,
                file="pairs.jsonl",
                line=17,
                excerpt="A customer asks for a refund after 31 days. What do you say?",
                answer_counts={"A": 1, "B": 1, "tie": 1},
                disagreement=1,
                comments=("Both are right, by the letter.", HOSTILE[1]),
            ),
            DisputedItem(
                id=_DIGEST,
                file="pairs.jsonl",
                line=204,
                excerpt=HOSTILE[2],
                answer_counts={"A": 2, "B": 1},
                disagreement=0.67,
            ),
        ),
        rows=209,
        left_out={"tie": 14, "draw": 17},
    )


def _largest_agreement(long: str) -> LabelAgreement:
    answer_counts = {f"{number}{long[:200]}": 10**6 for number in range(500)}
    item = DisputedItem(
        id=_DIGEST,
        file=long[:255],
        line=10**9,
        excerpt=long[:240],
        answer_counts=answer_counts,
        disagreement=0.5,
        comments=(long[:240],) * 200,
    )
    annotator = AnnotatorReport(name=long, answers=10**9, with_majority=0.5, share_of_a=0.5)
    pair = PairReport(first=long, second=long, items=10**9, agreement=0.5, kappa=0.5)
    return make_agreement().model_copy(
        update={
            "verdict": long,
            "values": answer_counts,
            "annotators": (annotator,) * MAX_ANNOTATORS,
            "pairs": (pair,) * MAX_PAIRS,
            "disputed": (item,) * MAX_DISPUTED,
        }
    )


def _widest_histogram() -> Histogram:
    return build_histogram(np.arange(1, 10_000_000, 997))


def _issues() -> list[Issue]:
    return [
        Issue(
            check="contradicting_answers",
            severity=Severity.ERROR,
            rows=118,
            message="118 rows ask one of 41 questions that are answered in ways that contradict each other.",
            advice="Keep one answer to each of these questions, the one that you would give today.",
            examples=(
                Example(
                    place=place(204, member="messages[1].content"),
                    excerpt="How long may I return an item? — You have 30 days from delivery.",
                    detail="same prompt, other answer",
                    other=place(7_311),
                    other_excerpt="How long may I return an item? — Returns are accepted within 14 days.",
                    score=0.97,
                ),
                Example(place=place(812), excerpt=HOSTILE[0], detail=HOSTILE[1], score=0.91),
            ),
        ),
        Issue(
            check="answer_language",
            severity=Severity.WARNING,
            rows=57,
            message="57 rows are answered in another language than they are asked in.",
            advice="Answer in the language of the question, or say in the system message which one to use.",
            examples=(
                Example(
                    place=place(99),
                    excerpt="Wo finde ich meine Rechnung? — You can find it under Account.",
                    detail="prompt de, answer en",
                    score=0.88,
                ),
                Example(
                    place=place(1_502),
                    excerpt="أين أجد فاتورتي؟ — In your account.",
                    detail="prompt ar, answer en",
                ),
            ),
        ),
        Issue(
            check="personal_data",
            severity=Severity.WARNING,
            rows=23,
            message="23 rows hold personal data: 17 e-mail addresses, 5 phone numbers and 1 key.",
            advice="Write personalData: Mask to have them replaced, or remove them.",
            examples=(
                Example(place=place(4_410), excerpt="Please write to <EMAIL> …", detail="e-mail address"),
            ),
        ),
        Issue(
            check="near_empty_answers",
            severity=Severity.NOTE,
            rows=14,
            message="14 answers have fewer than three words.",
            advice="Look whether they are meant.",
            examples=(Example(place=place(31), excerpt="Is it in stock? — Yes.", detail="1 word"),),
        ),
    ]


def _worst() -> list[Example]:
    hostile = [
        Example(place=place(9_000 + number, HOSTILE[0]), excerpt=text, detail=text, score=0.9)
        for number, text in enumerate(HOSTILE)
    ]
    plain = [
        Example(
            place=place(40 * number + 7, "escalations.csv.gz" if number % 3 else "support-2026.jsonl"),
            excerpt=f"Ticket {number}: the customer asks for a refund and is told to wait.",
            detail="contradicting_answers, near_empty_answers" if number % 2 else "answer_language",
            score=round(0.99 - number / 20, 2),
        )
        for number in range(12)
    ]
    return [*plain, *hostile]


def _clusters() -> list[Cluster]:
    return [
        Cluster(
            similarity=1.0,
            size=212,
            rows=tuple(place(17 + 31 * number) for number in range(MAX_CLUSTER_ROWS)),
            excerpt="Thanks for contacting us! We will come back to you within one working day.",
        ),
        Cluster(
            similarity=0.91,
            size=3,
            rows=(place(77), place(3_077), place(12, "escalations.csv.gz")),
            excerpt="My parcel shows as delivered, but I have not received it.",
        ),
    ]


def _leaks() -> list[Leak]:
    text = "A customer was charged twice for one order. Which team handles it, and within how many days?"
    return [
        Leak(
            row=place(5_120),
            held_out="refunds",
            other=place(14, "refunds.jsonl"),
            kind="near",
            similarity=0.94,
            excerpt=text,
            other_excerpt=text.replace("one order", "a single order"),
        ),
        Leak(
            row=place(5_544),
            held_out="validation",
            other=place(3, "validation.jsonl"),
            kind="passage",
            similarity=0.62,
            excerpt=HOSTILE[2],
            other_excerpt=HOSTILE[3],
        ),
        Leak(
            row=place(41, "validation.jsonl"),
            side=RowSide.VALIDATION,
            held_out="refunds",
            other=place(77, "refunds.jsonl"),
            kind="exact",
            similarity=1,
            excerpt="May I return a gift without its receipt?",
            other_excerpt="May I return a gift without its receipt?",
        ),
    ]


def _dropped() -> list[DroppedRow]:
    return [
        DroppedRow(
            place=place(318, member="messages[2].role"),
            reasons=("unrecognized_role: found 'bot'; write system, user, assistant or tool",),
            excerpt='{"messages": [{"role": "user", "content": "Hi"}, {"role": "bot" …',
        ),
        DroppedRow(
            place=RowPlace(file="support-2026.jsonl", line=6_021, column=48),
            reasons=(
                "invalid_json: found a line that ends in the middle of a string; write one object a line",
            ),
        ),
    ]


def _curve() -> LearningCurve:
    points = ((500, 2.41), (1_000, 2.18), (2_000, 2.02), (4_000, 1.9), (9_874, 1.79))
    return LearningCurve(
        measure="bits per character of held-out answers",
        points=points,
        fitted=tuple((rows, 1.45 + 8.35 * rows**-0.348) for rows, _ in points),
        now=1.79,
        doubled=1.72,
        verdict="Twice as many rows would lower the error by about 4 %: better rows will help more than more rows.",
    )


def _recommendation() -> Recommendation:
    return Recommendation(
        method="sft",
        adapter="LoRA",
        summary="Supervised fine-tuning with a LoRA adapter suits 9,874 conversations of one task.",
        reasons=(
            "9,874 rows are enough for a domain, and few for all weights of 1.7 billion parameters.",
            "Answers are given; there are no pairs to prefer one of.",
        ),
    )


def _estimate() -> TrainingEstimate:
    return TrainingEstimate(
        epochs=3,
        batch_size=16,
        steps=663,
        tokens=9_930_000,
        seconds=1_260,
        gpu_hours=0.35,
        amount=0.875,
        currency="EUR",
        gpu="H100",
    )
