"""Reports of evaluations: a rich one, the smallest, and the largest there can be."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tunesmith_contract.evaluation import Expect, Tier
from tunesmith_contract.report import Artifact, Interval
from tunesmith_evaluation.report.document import (
    MAX_EXCERPT,
    MAX_LEAKED_ITEMS,
    MAX_SLICES,
    MAX_WORST_ITEMS,
    AnswerExcerpt,
    ConfusionMatrix,
    Contamination,
    EvaluatedRun,
    EvaluationDocument,
    Fact,
    GateReport,
    LeakedItem,
    MetricReport,
    PolicyReport,
    SideContamination,
    SideCounts,
    SideKind,
    SideReport,
    SideScore,
    SliceReport,
    SuiteKind,
    SuiteReport,
    VerdictReport,
    WorstItem,
)

#: What an item or an answer may hold to harm whoever looks at it.
HOSTILE = (
    "<script>window.harmed = 1; document.title = 'harmed'</script>",
    '<img src=http://192.0.2.1/x.png onerror="window.harmed = 2">',
    "</pre></details></td></table></style></script><style>body{display:none}</style>",
    "{{ 7 * 7 }} javascript:alert(1) @everyone #1 | a | b |\n\n# Heading\n```\n<!-- -->]]>",
)
CONTROLS = "pay \u202eEUR 001\u202c now\x00\x1b[2J\u200b\ufeff"

_DIGEST = "sha256:" + "5e" * 32
_NAMES = ("candidate", "baseline", "hosted")


def make_metric(suite: str, metric: str, delta: tuple[float, float, float], **changes: Any) -> MetricReport:
    """A result with the difference given, of 200 items."""
    base = 0.7 if not changes.get("unit") else 8.0
    scores = (base + delta[0], base, base + 0.05)
    values: dict[str, Any] = {
        "suite": suite,
        "metric": metric,
        "items": 200,
        "scores": tuple(
            SideScore(side=name, score=Interval(value, value - 0.04, value + 0.03))
            for name, value in zip(_NAMES, scores, strict=True)
        ),
        "delta": Interval(*delta),
        "p_value": 0.004,
        "wins": 34,
        "losses": 12,
        "ties": 154,
    }
    return MetricReport(**(values | changes))


def make_worst(number: int, question: str, expected: str, candidate: str, baseline: str) -> WorstItem:
    """An item that only the baseline got right."""
    return WorstItem(
        suite="tickets" if number % 2 else "general",
        metric="ExactMatch",
        line=number,
        digest=f"sha256:{number:064x}",
        question=question[:MAX_EXCERPT],
        expected=expected[:MAX_EXCERPT],
        loss=1.0,
        answers=(
            AnswerExcerpt(
                side="candidate",
                text=candidate[:MAX_EXCERPT],
                characters=len(candidate),
                score=0.0,
                finish_reason="Length",
                tokens=64,
            ),
            AnswerExcerpt(
                side="baseline",
                text=baseline[:MAX_EXCERPT],
                characters=len(baseline),
                score=1.0,
                finish_reason="Stop",
                tokens=9,
                seconds=0.41,
            ),
        ),
    )


def make_document(**changes: Any) -> EvaluationDocument:
    """A report with something in every part of it, hostile texts among the rest."""
    values: dict[str, Any] = {
        "run": _run(),
        "verdict": VerdictReport(
            verdict="Fail",
            reason="NotPassed",
            message="The candidate is worse than the baseline on suite general: ExactMatch lost at least 0.03, and "
            "0.02 is the most that the gate allows.",
        ),
        "policy": PolicyReport(
            digest=_DIGEST,
            record={"suites": [{"name": "tickets", "metrics": ["ExactMatch"]}], "confidence": "0.95"},
        ),
        "sides": _sides(),
        "suites": _suites(),
        "results": _results(),
        "gates": _gates(),
        "slices": _slices(),
        "worst": _worst(),
        "worst_total": 43,
        "contamination": _contamination(),
        "details": Artifact(uri="pvc://artifacts/support/items.jsonl", digest=_DIGEST, size_bytes=48_213),
        "decoding": {"temperature": 0, "maxNewTokens": 64, "seed": 42},
        "environment": {"engine": "transformers 5.23", "gpu": "NVIDIA L4", "image": "trainer:0.1.0"},
        "advice": ("The candidate closes 62 per cent of the gap between the baseline and the best score.",),
        "warnings": ("The training data of side hosted is not known: leaked items can't be found there.",),
    }
    return EvaluationDocument(**(values | changes))


def _run() -> EvaluatedRun:
    ended = datetime(2026, 11, 30, 14, 5, tzinfo=UTC)
    return EvaluatedRun(
        namespace="support",
        name="tickets-v7-eval",
        uid="0f5b8f8e-6f0e-4d5f-9f47-0b7f4a8b2c11",
        started=ended - timedelta(minutes=21),
        ended=ended,
        tunesmith_version="0.1.0",
        alias="tickets",
        runs=2,
        gpu_seconds=1260,
        amount=0.87,
        currency="EUR",
    )


def _results() -> tuple[MetricReport, ...]:
    return (
        make_metric("tickets", "ExactMatch", (0.12, 0.08, 0.16)),
        make_metric(
            "tickets",
            "JSONFields",
            (0.02, -0.01, 0.05),
            facts=(
                Fact(name="valid JSON", value=0.98, side="candidate"),
                Fact(name="schema", value="v2"),
            ),
        ),
        make_metric("tickets", "Perplexity", (-1.2, -1.6, -0.7), unit="ppl", higher_is_better=False),
        make_metric(
            "general",
            "ExactMatch",
            (-0.06, -0.09, -0.03),
            wins=2,
            losses=31,
            ties=67,
            items=100,
            groups=25,
            confusion=(
                ConfusionMatrix(
                    side="candidate",
                    labels=("billing", "technical", "other"),
                    counts=((31, 2, 0), (4, 40, 1), (0, 3, 19)),
                ),
            ),
        ),
    )


def _slices() -> tuple[SliceReport, ...]:
    return (
        SliceReport(
            suite="tickets",
            metric="ExactMatch",
            column="language",
            value="de",
            items=120,
            delta=Interval(0.16, 0.1, 0.22),
        ),
        SliceReport(
            suite="tickets",
            metric="ExactMatch",
            column="language",
            value="fr",
            items=21,
            delta=Interval(-0.1, -0.2, -0.01),
        ),
    )


def _contamination() -> Contamination:
    return Contamination(
        sides=(
            SideContamination(
                side="candidate",
                checked=True,
                uri="pvc://artifacts/support/train.parquet",
                digest=_DIGEST,
            ),
            SideContamination(
                side="hosted", checked=False, message="The training data of an endpoint is not known."
            ),
        ),
        leaked=3,
        items=(
            LeakedItem(suite="tickets", line=17, digest=_DIGEST, side="candidate", question=HOSTILE[0]),
            LeakedItem(
                suite="tickets",
                line=21,
                digest=_DIGEST,
                side="candidate",
                similarity=0.91,
                question="Where is my parcel?",
            ),
        ),
    )


def _sides() -> tuple[SideReport, ...]:
    return (
        SideReport(
            name="candidate",
            kind=SideKind.ARTIFACT,
            uri="pvc://artifacts/support/sha256/" + "ab" * 32,
            digest="sha256:" + "ab" * 32,
            base_model="hf://HuggingFaceTB/SmolLM2-1.7B-Instruct",
            revision="31b70e2e869a7173562077fd711b654946d38674",
            system_prompt=f"Route the ticket.\n{HOSTILE[0]}",
            template_arguments={"enable_thinking": False},
            prompt_tokens=81_240,
            completion_tokens=3_512,
            latency_p50=0.21,
            latency_p95=0.48,
        ),
        SideReport(
            name="baseline",
            kind=SideKind.BASE,
            uri="hf://HuggingFaceTB/SmolLM2-1.7B-Instruct",
            revision="31b70e2e869a7173562077fd711b654946d38674",
            few_shot=3,
            prompt_tokens=212_240,
            completion_tokens=9_100,
            latency_p50=0.33,
        ),
        SideReport(
            name="hosted",
            kind=SideKind.ENDPOINT,
            uri="https://models.example/v1",
            revision="large-70b",
            context_column="passages",
            amount=0.41,
            currency="EUR",
        ),
    )


def _suites() -> tuple[SuiteReport, ...]:
    return (
        SuiteReport(
            name="tickets",
            uri="pvc://data/tickets/test.jsonl",
            digest=_DIGEST,
            items=480,
            selected=210,
            leaked=3,
            used=200,
            sides=(
                SideCounts(side="candidate", answered=203, too_long=4, truncated=11),
                SideCounts(
                    side="baseline", answered=205, refused_by_template=2, incomplete_thinking=6, unanswered=1
                ),
            ),
        ),
        SuiteReport(
            name="general",
            kind=SuiteKind.SAFETY,
            items=100,
            selected=100,
            used=100,
            repeats=4,
            digest=_DIGEST,
        ),
        SuiteReport(
            name="mmlu",
            kind=SuiteKind.HARNESS,
            items=0,
            selected=0,
            used=0,
            problem="The data of task mmlu is not mounted: name its folder in suites[2].harness.data.",
        ),
    )


def _gates() -> tuple[GateReport, ...]:
    return (
        GateReport(
            suite="tickets",
            metric="ExactMatch",
            expect=Expect.BETTER,
            margin="0.05",
            threshold=0.05,
            verdict="Pass",
            p_pass=0.0004,
            p_fail=0.99,
            message="The whole interval lies above 0.05.",
        ),
        GateReport(
            suite="tickets",
            metric="JSONFields",
            expect=Expect.BETTER,
            threshold=0.0,
            verdict="Inconclusive",
            p_pass=0.08,
            p_fail=0.92,
            reason="TooFewItems",
            more_items=420,
            message="Zero lies within the interval.",
        ),
        GateReport(
            suite="tickets",
            metric="Perplexity",
            expect=Expect.NOT_WORSE,
            margin="5 % of the baseline's score",
            threshold=0.4,
            tier=Tier.ADVISORY,
            verdict="Pass",
        ),
        GateReport(
            suite="general",
            metric="ExactMatch",
            expect=Expect.NOT_WORSE,
            margin="0.02",
            threshold=-0.02,
            verdict="Fail",
            p_pass=0.991,
            p_fail=0.009,
            p_fail_corrected=0.018,
        ),
        GateReport(
            suite="mmlu",
            metric="Accuracy",
            expect=Expect.NOT_WORSE,
            margin="0.02",
            verdict="Inconclusive",
            reason="SuiteMissing",
            message="The suite was not evaluated.",
        ),
    )


def _worst() -> tuple[WorstItem, ...]:
    items = [
        make_worst(
            1,
            "I was charged twice for order 4711. Which team takes care of it?\nAnswer with one word.",
            "billing",
            "The ticket belongs to the technical team, because an order was charged twice.",
            "The ticket belongs to the billing team.",
        ),
        make_worst(2, "日本の首都はどこですか。", "東京", "日本の首都は大阪です。", "日本の首都は東京です。"),
        make_worst(3, CONTROLS, "", CONTROLS, ""),
    ]
    items += [
        make_worst(4 + index, text, text, text, f"{text} and more") for index, text in enumerate(HOSTILE)
    ]
    return tuple(items)


def make_small_document(**changes: Any) -> EvaluationDocument:
    """A report with as little in it as there can be: nothing was measured."""
    ended = datetime(2026, 11, 30, 14, 5, tzinfo=UTC)
    values: dict[str, Any] = {
        "run": EvaluatedRun(name="first", started=ended, ended=ended, tunesmith_version="0.1.0"),
        "verdict": VerdictReport(
            verdict="Inconclusive",
            reason="SuiteMissing",
            message="Suite tickets holds no item that all sides answered.",
        ),
        "policy": PolicyReport(digest=_DIGEST, record={}),
        "sides": (
            SideReport(name="candidate", kind=SideKind.ARTIFACT, digest=_DIGEST),
            SideReport(name="baseline", kind=SideKind.BASE, uri="hf://org/name"),
        ),
        "suites": (),
        "results": (),
    }
    return EvaluationDocument(**(values | changes))


def make_largest_document(character: str) -> EvaluationDocument:
    """A report of 10,000 items whose texts and lists are as long as they may be, or longer than anyone has them."""
    text = (character * 10 + " ") * (MAX_EXCERPT // 11)
    long = character * 5000
    suites = [f"{character}{number}" for number in range(60)]
    metrics = [f"Metric{number}{long}" for number in range(3)]
    base = make_document()
    return base.model_copy(
        update={
            "verdict": base.verdict.model_copy(update={"message": long * 3}),
            "policy": PolicyReport(digest=_DIGEST, record={"key": [long] * 200}),
            "sides": tuple(
                base.sides[0].model_copy(update={"name": f"side{number}", "uri": long, "system_prompt": long})
                for number in range(30)
            ),
            "suites": tuple(
                SuiteReport(name=name, items=10_000, selected=10_000, used=10_000, uri=long, problem=long)
                for name in suites
            ),
            "results": tuple(
                make_metric(name, metric, (0.1, -0.1, 0.2), facts=(Fact(name=long, value=long),) * 50)
                for name in suites
                for metric in metrics
            ),
            "gates": tuple(
                base.gates[0].model_copy(update={"suite": name, "metric": metric, "message": long})
                for name in suites
                for metric in metrics
            ),
            "slices": tuple(
                base.slices[0].model_copy(
                    update={"value": f"{number}{long}", "column": f"column{number % 40}"}
                )
                for number in range(MAX_SLICES)
            ),
            "worst": tuple(
                make_worst(number, text, text, text, text[::-1] + str(number))
                for number in range(MAX_WORST_ITEMS)
            ),
            "worst_total": 9_000,
            "contamination": Contamination(
                sides=base.contamination.sides * 20,
                leaked=500,
                items=(base.contamination.items[1].model_copy(update={"question": text}),) * MAX_LEAKED_ITEMS,
            ),
            "advice": (long,) * 60,
            "warnings": (long,) * 60,
            "environment": {f"name{number}": long for number in range(100)},
        }
    )
