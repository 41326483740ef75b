"""Report document of a run, from its suites with their scores."""

import importlib.metadata
import math
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np

from tunesmith_contract.evaluation import Metric, Side, Suite
from tunesmith_contract.report import EvaluationReport, SideUsage
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.shared_rules.advice import advice_sentences
from tunesmith_contract.shared_rules.verdict import judge
from tunesmith_evaluation.comparison.compare_metrics import MetricComparison
from tunesmith_evaluation.items.item import EvaluationItem, items_digest
from tunesmith_evaluation.items.requests import Problem, Reply
from tunesmith_evaluation.report.document import (
    MAX_LABELS,
    MAX_LEAKED_ITEMS,
    AnswerExcerpt,
    ConfusionMatrix,
    Contamination,
    EvaluatedRun,
    EvaluationDocument,
    Fact,
    LeakedItem,
    MetricReport,
    PolicyReport,
    SideContamination,
    SideCounts,
    SideKind,
    SideReport,
    SuiteKind,
    SuiteReport,
    WorstItem,
    excerpt,
)
from tunesmith_evaluation.report.parts import (
    WorstItems,
    describe_gates,
    describe_metric,
    describe_slices,
    describe_verdict,
)
from tunesmith_evaluation.statistics.kinds import ScoreKind

from .budgets import describe_unasked
from .costs import side_amount
from .scoring import ScoredSuite
from .trained_rows import LeakReport

_UNITS = {
    Metric.PERPLEXITY: "ppl",
    Metric.BITS_PER_BYTE: "bits",
    Metric.LATENCY: "s",
    Metric.TOKENS: "tokens",
}
_BOUNDED = frozenset({ScoreKind.BINARY, ScoreKind.UNIT_INTERVAL})
#: Programs whose versions matter for answers and scores.
_PROGRAMS = ("torch", "transformers", "vllm", "peft", "lm-eval", "sacrebleu")
_UNKNOWN_VERSION = "0"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts about a run beside its scores.

    Attributes:
        started, ended: times with their zone.
        leaks: result of the search for leaked items.
        policy: record of all that decides.
        same_models: candidate and baseline are one model, asked in the same way.
    """

    started: datetime
    ended: datetime
    leaks: LeakReport
    policy: Mapping[str, Any]
    same_models: bool = False


def build_document(
    config: EvaluateConfig,
    scored: Sequence[ScoredSuite],
    compared: Sequence[MetricComparison],
    evaluation: EvaluationReport,
    facts: RunFacts,
) -> EvaluationDocument:
    """Report document of a run.

    Args:
        config: configuration of the run.
        scored: suites with scores, in the order of the configuration.
        compared: the comparison by each metric.
        evaluation: the report for the operator, with evidence on the gates.
        facts: further facts.
    """
    judged = judge(config.gates, evaluation.gates, config.confidence)
    by_suite = {suite.loaded.name: suite for suite in scored}
    results = [_result(each, by_suite[each.scores.suite], config) for each in compared]
    worst = _worst_items(config, scored)
    return EvaluationDocument(
        run=_run(config, evaluation, facts),
        verdict=describe_verdict(config.gates, judged),
        policy=PolicyReport(digest=evaluation.policy_digest, record=dict(facts.policy)),
        sides=tuple(
            _side(side, usage, config, scored)
            for side, usage in zip(config.sides, evaluation.usage, strict=True)
        ),
        suites=tuple(map(_suite, scored)),
        results=tuple(result for result, _ in results),
        gates=describe_gates(config.gates, judged),
        slices=describe_slices(compared),
        worst=tuple(worst),
        worst_total=worst.total,
        contamination=_contamination(scored, facts.leaks),
        details=evaluation.details,
        decoding={"seed": config.seed} | {suite.name: suite.decoding.to_dict() for suite in config.suites},
        environment={"engine": str(config.engine), "python": platform.python_version()} | _versions(),
        advice=tuple(advice_sentences(config, evaluation, config.advice)) if config.advice else (),
        warnings=tuple(
            dict.fromkeys(
                (
                    *config.notes,
                    *facts.leaks.warnings,
                    *describe_unasked(scored),
                    *_no_answers(scored),
                    *_weak_answers(scored),
                    *_equal_answers(config, scored),
                    *(each for _, warnings in results for each in warnings),
                )
            )
        ),
    )


def _run(config: EvaluateConfig, evaluation: EvaluationReport, facts: RunFacts) -> EvaluatedRun:
    """Name, time and cost of a run."""
    return EvaluatedRun(
        namespace=config.owner.namespace,
        name=config.owner.name,
        uid=config.owner.uid,
        started=facts.started,
        ended=facts.ended,
        tunesmith_version=_version("tunesmith-evaluation") or _UNKNOWN_VERSION,
        alias=config.sides[0].served_as.rpartition("/")[2],
        gpu_seconds=config.gpus * (facts.ended - facts.started).total_seconds(),
        amount=None if evaluation.amount is None else float(evaluation.amount),
        currency=evaluation.currency or "",
    )


def _result(
    comparison: MetricComparison, suite: ScoredSuite, config: EvaluateConfig
) -> tuple[MetricReport, list[str]]:
    """Result of a metric, and the warnings of its scorer."""
    key = comparison.scores.metric
    settings = next(metric for metric in suite.loaded.suite.metrics if metric.key == key)
    scorer = suite.loaded.scorers.get(key)
    names = [side.name for side in config.sides]
    result = describe_metric(
        comparison,
        names,
        config.confidence,
        unit=_UNITS.get(settings.type, ""),
        version=scorer.version if scorer is not None else "",
    )
    if scorer is None:
        return result, list(_missing_scores(suite, key))
    further = {name: dict(scorer.summarize(suite.scores[key][name])) for name in names}
    warnings = [warning for members in further.values() for warning in members.pop("warnings", [])]
    warnings += _missing_scores(suite, key)
    matrices = [matrix for name, members in further.items() if (matrix := _confusion(name, members))]
    facts = [fact for name, members in further.items() for fact in _facts(name, members)]
    return result.model_copy(update={"facts": tuple(facts), "confusion": tuple(matrices)}), warnings


def _no_answers(scored: Sequence[ScoredSuite]) -> Iterator[str]:
    """Sentences on sides that have not answered a single item of a suite, with the most frequent cause."""
    for suite in scored:
        for side, replies in suite.replies.items():
            causes = Counter(
                reply.message or str(reply.problem)
                for repeats in replies
                for reply in repeats
                if reply.answer is None and reply.problem is not Problem.BEYOND_BUDGET
            )
            if causes and not any(suite.answers[side]):
                cause, count = causes.most_common(1)[0]
                yield f"{suite.loaded.name}: {side} has no answer to any item ({count:,} times: {cause})"


def _weak_answers(scored: Sequence[ScoredSuite]) -> Iterator[str]:
    """Sentences on sides of which many answers to a suite are empty texts, or were cut off."""
    for suite in scored:
        for side in suite.replies:
            if words := suite.describe_empty_answers(side, suite.loaded.suite.max_broken):
                yield f"{suite.loaded.name}: {words}: check its prompt, its chat template and its endpoint"
            if words := suite.describe_cut_answers(side):
                yield (
                    f"{suite.loaded.name}: {words}, and are scored by what stands before: raise it if they would have "
                    "come to the point"
                )


def _equal_answers(config: EvaluateConfig, scored: Sequence[ScoredSuite]) -> Iterator[str]:
    """A sentence if candidate and baseline give the same answers to all: they may be one model by two names."""
    candidate, baseline = (
        [(answer.raw, answer.tool_calls) for suite in scored for answer in suite.generated(side.name)]
        for side in config.sides[:2]
    )
    if candidate and candidate == baseline:
        yield f"All {len(candidate):,} answers of candidate and baseline are equal: look whether they are one model"


def _missing_scores(suite: ScoredSuite, key: str) -> Iterator[str]:
    """Sentences on answers without a score, by their reason; an item without an answer is counted elsewhere."""
    for side, scores in suite.scores[key].items():
        answered = [score for score, some in zip(scores, suite.answers[side], strict=True) if some]
        reasons = Counter(str(score.detail.get("reason", "")) for score in answered if score.value is None)
        for reason, count in reasons.items():
            words = (
                f"{suite.loaded.name}/{key}: {count:,} of {len(answered):,} answers of {side} have no score"
            )
            yield f"{words}: {reason}" if reason else words


def _confusion(side: str, members: dict[str, Any]) -> ConfusionMatrix | None:
    """Confusion matrix among the further members of a metric, which it is taken from."""
    labels, counts = members.pop("labels", None), members.pop("confusion", None)
    if not labels or counts is None:
        return None
    shown = labels[:MAX_LABELS]
    kept = tuple((*row[: len(shown)], sum(row[len(shown) :])) for row in counts[: len(shown)])
    return ConfusionMatrix(side=side, labels=tuple(shown), counts=kept)


def _facts(side: str, members: Mapping[str, Any], prefix: str = "") -> Iterator[Fact]:
    """Numbers and texts among the further members of a metric, those of mappings by both names."""
    for name, value in members.items():
        if isinstance(value, Mapping):
            yield from _facts(side, value, f"{name} ")
        elif isinstance(value, bool) or value is None:
            continue
        elif isinstance(value, (int, float)) and math.isfinite(value):
            yield Fact(name=prefix + name, value=float(value), side=side)
        elif isinstance(value, str) and value:
            yield Fact(name=prefix + name, value=value, side=side)


def _side(side: Side, usage: SideUsage, config: EvaluateConfig, scored: Sequence[ScoredSuite]) -> SideReport:
    kind, uri = _source(side, config)
    of_artifact = kind in {SideKind.ARTIFACT, SideKind.CHECKPOINT, SideKind.ALIAS, SideKind.ANSWERS}
    base = side.model or config.base_model
    cost = side_amount(side, usage)
    return SideReport(
        name=side.name,
        kind=kind,
        uri=uri,
        digest=usage.revision if of_artifact else "",
        revision=side.endpoint.model if side.endpoint else "" if of_artifact else usage.revision,
        base_model=base or "" if side.is_loaded and of_artifact else "",
        system_prompt=side.system_prompt,
        few_shot=side.few_shot,
        template_arguments=side.asked_switches,
        context_column=side.context_column or "",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        amount=None if cost is None else float(cost[0]),
        currency="" if cost is None else cost[1],
        latency_p50=usage.latency,
        latency_p95=_latency_p95(side, scored),
    )


def _latency_p95(side: Side, scored: Sequence[ScoredSuite]) -> float | None:
    replies = (reply for suite in scored for repeats in suite.replies[side.name] for reply in repeats)
    seconds = [reply.answer.seconds for reply in replies if reply.answer and reply.answer.seconds is not None]
    return float(np.quantile(seconds, 0.95)) if seconds else None


def _source(side: Side, config: EvaluateConfig) -> tuple[SideKind, str]:
    """Kind and location of what answers for a side."""
    if side.endpoint is not None:
        return SideKind.ENDPOINT, side.endpoint.url
    if side.answers is not None:
        return SideKind.ANSWERS, side.answers.uri
    if side.adapter is not None:
        return SideKind.ALIAS if side.served_as else SideKind.ARTIFACT, side.adapter.uri
    if side.checkpoint is not None:
        return SideKind.CHECKPOINT, side.checkpoint.uri
    if side.model is not None:
        return SideKind.MODEL, side.model
    return SideKind.BASE, config.base_model or ""


def _suite(scored: ScoredSuite) -> SuiteReport:
    loaded = scored.loaded
    candidate, baseline = list(scored.answers.values())[:2]
    return SuiteReport(
        name=loaded.name,
        kind=_kind(loaded.suite),
        uri=loaded.suite.dataset or "",
        digest=items_digest(loaded.sampled),
        items=len(loaded.rows),
        repeated=loaded.data.repeated,
        selected=len(loaded.sampled),
        leaked=len(loaded.sampled) - len(loaded.items),
        used=sum(bool(one and other) for one, other in zip(candidate, baseline, strict=True)),
        repeats=loaded.suite.repeats,
        sides=tuple(_counts(side, scored) for side in scored.replies),
        problem="No item has an answer of both candidate and baseline." if scored.is_empty else "",
    )


def _kind(suite: Suite) -> SuiteKind:
    if suite.container is not None:
        return SuiteKind.CONTAINER
    if suite.harness is not None:
        return SuiteKind.HARNESS
    return SuiteKind.SAFETY if suite.is_safety else SuiteKind.DATASET


def _counts(side: str, scored: ScoredSuite) -> SideCounts:
    replies = scored.replies[side]
    problems = [next((reply.problem for reply in repeats if reply.problem), None) for repeats in replies]
    answers = [reply.answer for repeats in replies for reply in repeats if reply.answer is not None]
    return SideCounts(
        side=side,
        answered=sum(bool(some) for some in scored.answers[side]),
        too_long=problems.count(Problem.TOO_LONG),
        refused_by_template=problems.count(Problem.REFUSED_BY_TEMPLATE),
        unanswered=problems.count(Problem.UNANSWERED),
        beyond_budget=problems.count(Problem.BEYOND_BUDGET),
        truncated=sum(answer.truncated for answer in answers),
        incomplete_thinking=sum(not answer.complete for answer in answers),
        empty=scored.empty_answers(side),
    )


def _worst_items(config: EvaluateConfig, scored: Sequence[ScoredSuite]) -> WorstItems:
    """Items on which the candidate lost most, by one metric of each suite."""
    worst = WorstItems()
    for suite in scored:
        key = _decisive_metric(config, suite)
        scores = suite.metric_scores(key)
        sign = 1 if scores.higher_is_better else -1
        losses = sign * (scores.values[1] - scores.values[0])
        known = losses[~np.isnan(losses)]
        # Losses without bounds are counted in shares of the greatest one, so that they do not hide all others.
        scale = 1.0 if scores.kind in _BOUNDED or not known.size else max(float(known.max()), 1e-12)
        for index, loss in enumerate(losses.tolist()):
            worst.add(loss / scale, partial(_worst_item, suite, key, index, loss))
    return worst


def _decisive_metric(config: EvaluateConfig, suite: ScoredSuite) -> str:
    """Metric by which a suite's items are ranked: the first one of a gate, else the first."""
    gated = (gate.metric for gate in config.gates if gate.suite == suite.loaded.name)
    return next((key for key in gated if key in suite.scores), next(iter(suite.scores)))


def _worst_item(suite: ScoredSuite, key: str, index: int, loss: float) -> WorstItem:
    item = suite.loaded.items[index]
    candidate, baseline = list(suite.replies)[:2]
    return WorstItem(
        suite=suite.loaded.name,
        metric=key,
        line=item.line,
        digest=item.digest,
        question=excerpt(_question(item)),
        expected=excerpt(item.expected.text),
        loss=loss,
        answers=(
            _answer(suite, key, candidate, index),
            _answer(suite, key, baseline, index),
        ),
    )


def _answer(suite: ScoredSuite, key: str, side: str, index: int) -> AnswerExcerpt:
    """First answer of a side to an item, with the score of all its repeats."""
    reply: Reply = suite.replies[side][index][0]
    answer, value = reply.answer, suite.scores[key][side][index].value
    assert value is not None
    if answer is None:
        return AnswerExcerpt(side=side, text="", characters=0, score=value, finish_reason=str(reply.problem))
    return AnswerExcerpt(
        side=side,
        text=excerpt(answer.raw),
        characters=len(answer.raw),
        score=value,
        finish_reason="Length" if answer.truncated else "Stop",
        tokens=answer.answer_tokens,
        seconds=answer.seconds,
    )


def _question(item: EvaluationItem) -> str:
    """Question as text; turns of a conversation with the names of their roles, unless there is only one."""
    if not item.messages:
        return item.text
    if len(item.messages) == 1:
        return str(item.messages[0].get("content") or "")
    return "\n\n".join(f"{message['role']}: {message.get('content') or ''}" for message in item.messages)


def _contamination(scored: Sequence[ScoredSuite], leaks: LeakReport) -> Contamination:
    found = [
        (suite.loaded.name, item, leaks.leaks[item.digest])
        for suite in scored
        for item in suite.loaded.sampled
        if item.digest in leaks.leaks
    ]
    return Contamination(
        sides=tuple(
            SideContamination(
                side=check.side,
                checked=not check.problem,
                uri=check.uri,
                digest=check.digest,
                message=check.problem,
            )
            for check in leaks.checks
        ),
        leaked=len(found),
        items=tuple(
            LeakedItem(
                suite=name,
                line=item.line,
                digest=item.digest,
                side=leak.side,
                similarity=leak.overlap.similarity,
                question=excerpt(_question(item)),
            )
            for name, item, leak in found[:MAX_LEAKED_ITEMS]
        ),
    )


def _versions() -> dict[str, str]:
    """Versions of the programs that are installed."""
    return {name: version for name in _PROGRAMS if (version := _version(name))}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
