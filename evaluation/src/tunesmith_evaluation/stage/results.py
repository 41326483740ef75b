"""Report of a run, and the file of its items."""

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.evaluation import Side
from tunesmith_contract.layout import artifact_uri
from tunesmith_contract.report import (
    Artifact,
    ComparedSide,
    EvaluationReport,
    Outcome,
    RunReport,
    SideUsage,
)
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_data.pod.workspace import Workspace
from tunesmith_evaluation.comparison.compare_metrics import ComparisonRules, compare_metrics
from tunesmith_evaluation.items.item import EvaluationItem
from tunesmith_evaluation.items.items_file import ITEMS_FILE, StoredAnswer, StoredItem, open_items_file
from tunesmith_evaluation.items.requests import Reply
from tunesmith_evaluation.metrics.reading import read_answer
from tunesmith_evaluation.policy.record import policy_digest
from tunesmith_evaluation.report.document import REPORT_FILE, EvaluationDocument
from tunesmith_evaluation.report.files import report_files

from .budgets import metrics_beyond_budget
from .costs import sum_costs
from .documents import RunFacts, build_document
from .scoring import ScoredSuite

#: Reason for which an item that a side was trained on is left out.
LEAKED = "Leaked"


def build_report(
    config: EvaluateConfig,
    workspace: Workspace,
    scored: Sequence[ScoredSuite],
    revisions: Mapping[str, str],
    base_model_revision: str,
    facts: RunFacts,
) -> RunReport:
    """Report of the stage; writes the file of items, and beside it the report document with its renderings.

    Args:
        config: configuration of the run.
        workspace: place of the file.
        scored: suites with scores.
        revisions: revision of each side's model or artifact; empty where it can't be known.
        base_model_revision: revision of the run's base model; empty if there is none.
        facts: further facts about the run.
    """
    metrics = [suite.metric_scores(key) for suite in scored if not suite.is_empty for key in suite.scores]
    compared, evidence = compare_metrics(
        metrics,
        ComparisonRules(
            confidence=config.confidence,
            seed=config.seed,
            gates=config.gates,
            max_broken={suite.name: suite.max_broken for suite in config.suites},
            skipped={suite.loaded.name for suite in scored if suite.is_empty},
            beyond_budget=metrics_beyond_budget(scored),
            empty_baseline={
                (suite.loaded.name, key)
                for suite in scored
                if suite.describe_empty_answers(config.sides[1].name)
                for key in suite.scores
                if suite.reads_answers(key)
            },
            same_models=facts.same_models,
        ),
    )
    usage = tuple(_usage(side, revisions[side.name], scored) for side in config.sides)
    evaluation = EvaluationReport(
        sides=tuple(side.name for side in config.sides),
        results=tuple(comparison.result for comparison in compared),
        gates=tuple(evidence),
        suites=tuple(suite.counts for suite in scored),
        usage=usage,
        **sum_costs(config.sides, usage, scored),
        compared=tuple(
            ComparedSide(revisions[side.name], side.served_as, side.is_bare) for side in config.sides[:2]
        ),
        confidence=config.confidence,
        policy_digest=policy_digest(facts.policy),
        base_model_revision=base_model_revision,
        details=_write_items(workspace, scored),
    )
    written = _write_report(workspace, build_document(config, scored, compared, evaluation, facts))
    evaluation = evaluation.model_copy(
        update={"report_digest": sha256_digest(written), "report_bytes": len(written)}
    )
    return RunReport(stage="evaluate", outcome=Outcome.SUCCEEDED, evaluation=evaluation)


def _write_report(workspace: Workspace, document: EvaluationDocument) -> bytes:
    """Write the report document and its renderings beside the file of items; return the document's bytes."""
    assert document.details is not None
    folder = artifact_uri(workspace.work, document.details.digest)
    files = report_files(document)
    for name, content in files.items():
        workspace.write(folder.join(name), content)
    return files[REPORT_FILE]


def _usage(side: Side, revision: str, scored: Sequence[ScoredSuite]) -> SideUsage:
    """Consumption of one side."""
    replies = [reply for suite in scored for repeats in suite.replies[side.name] for reply in repeats]
    answers = [reply.answer for reply in replies if reply.answer is not None]
    seconds = [answer.seconds for answer in answers if answer.seconds is not None]
    return SideUsage(
        revision=revision,
        prompt_tokens=sum(reply.prompt_tokens or 0 for reply in replies),
        completion_tokens=sum(answer.tokens or 0 for answer in answers),
        latency=statistics.median(seconds) if seconds else None,
    )


def _write_items(workspace: Workspace, scored: Sequence[ScoredSuite]) -> Artifact:
    """Write the file of all items with answers and scores, under the digest of its content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ITEMS_FILE
        with open_items_file(path) as writer:
            for suite in scored:
                for item in _stored_items(suite):
                    writer.write(item)
        uri = artifact_uri(workspace.work, writer.digest).join(ITEMS_FILE)
        workspace.write(uri, path.read_bytes())
        return Artifact(uri=str(uri), digest=writer.digest, size_bytes=writer.size_bytes)


def _stored_items(suite: ScoredSuite) -> Iterator[StoredItem]:
    """Items with the answers of all sides; leaked ones without."""
    places = {item.digest: index for index, item in enumerate(suite.loaded.items)}
    for item in suite.loaded.sampled:
        index = places.get(item.digest)
        if index is None:
            yield _stored_item(suite.loaded.name, item, excluded=LEAKED)
            continue
        problems = {
            side: _problem(replies[index])
            for side, replies in suite.replies.items()
            if not suite.answers[side][index]
        }
        answers = {
            side: tuple(
                _stored_answer(suite, side, index, reply)
                for reply in replies[index]
                if reply.answer is not None
            )
            for side, replies in suite.replies.items()
        }
        yield _stored_item(suite.loaded.name, item, problems=problems, answers=answers)


def _stored_item(suite: str, item: EvaluationItem, **members: Any) -> StoredItem:
    calls = item.answer.get("tool_calls")
    return StoredItem(
        suite=suite,
        line=item.line,
        digest=item.digest,
        messages=tuple(dict(message) for message in item.messages) or None,
        prompt=None if item.messages else item.text,
        tools=tuple(dict(tool) for tool in item.tools) or None,
        expected=item.expected.text or (canonical_json(calls).decode() if calls else ""),
        group=item.group,
        **members,
    )


def _problem(repeats: Sequence[Reply]) -> str:
    """Cause for which an item has no complete set of answers of a side."""
    first = next(reply for reply in repeats if reply.answer is None)
    return f"{first.problem}: {first.message}" if first.message else str(first.problem)


def _stored_answer(suite: ScoredSuite, side: str, index: int, reply: Reply) -> StoredAnswer:
    """Answer with the scores of its item, which are those of all repeats together."""
    answer = reply.answer
    assert answer is not None
    found = {key: scores[side][index].value for key, scores in suite.scores.items()}
    in_text = read_answer(answer.raw, tools=reply.request.prompt.tools).tool_calls
    # Calls in the text are read from it again; an endpoint gives them beside it.
    beside = () if answer.tool_calls == in_text else answer.tool_calls
    calls = tuple(_openai_call(call.name, call.arguments) for call in beside)
    return StoredAnswer(
        text=answer.raw,
        finish_reason="Length" if answer.truncated else "Stop",
        prompt_tokens=reply.prompt_tokens,
        tokens=answer.tokens,
        seconds=answer.seconds,
        tool_calls=calls or None,
        scores={key: value for key, value in found.items() if value is not None},
    )


def _openai_call(name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}
