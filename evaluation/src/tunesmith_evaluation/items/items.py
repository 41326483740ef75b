"""Evaluation items, few-shot examples, and prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.evaluation import Metric, Side, Suite
from tunesmith_contract.sources import DataFormat
from tunesmith_data.failures import UserError
from tunesmith_data.models.rendering import Message, Renderer
from tunesmith_data.rows.findings import Finding
from tunesmith_data.rows.reading import raise_findings, read_source
from tunesmith_data.rows.schema.formats import EVALUATION, Row, is_conversational
from tunesmith_data.rows.schema.row_checks import row_digest
from tunesmith_data.rows.table.split import content_order
from tunesmith_evaluation.metrics.text_metrics import accepts


@dataclass(frozen=True, slots=True)
class EvaluationItem:
    """Question with its expected answer.

    Attributes:
        digest: digest of the whole row.
        messages: conversation before the answer; None for plain text.
        text: prompt of plain text; empty for a conversation.
        tools: schemas of tools, if any.
        expected: content of the last assistant turn, or the completion.
        line: line number in its file.
    """

    digest: str
    messages: tuple[Message, ...] | None
    text: str
    tools: list[Row] | None
    expected: str
    line: int

    @property
    def question(self) -> str:
        """Digest of the question alone, without the expected answer."""
        return sha256_digest(canonical_json([self.messages, self.text, self.tools]))


def read_items(path: Path, name: str, metrics: Sequence[Metric] = ()) -> list[EvaluationItem]:
    """Items of a file in its order, without duplicates.

    Raises:
        DataError: a row fails a check, or a metric can't score against its expected answer.
    """
    source = read_source(path, DataFormat.AUTO, name, EVALUATION)
    if source.findings:
        raise_findings(list(source.findings))
    items = {item.digest: item for item in (_item(row.row, row.line) for row in reversed(source.rows))}
    findings = [
        Finding("expected_answer", item.expected[:60], f"write an answer that fits {metric}").at(
            name, item.line
        )
        for item in items.values()
        for metric in metrics
        if not accepts(metric, item.expected)
    ]
    if findings:
        raise_findings(sorted(findings, key=lambda finding: finding.place.line))
    return sorted(items.values(), key=lambda item: item.line)


def limit_items(items: Sequence[EvaluationItem], suite: Suite, seed: int) -> list[EvaluationItem]:
    """Sample of at most ``suite.limit`` items in the order of the file, chosen by content and seed."""
    if suite.limit is None or suite.limit >= len(items):
        return list(items)
    chosen = sorted(items, key=lambda item: content_order({"item": item.digest}, seed))[: suite.limit]
    return sorted(chosen, key=lambda item: item.line)


def items_digest(items: Sequence[EvaluationItem]) -> str:
    """Digest of a suite's data."""
    return sha256_digest(canonical_json([item.digest for item in items]))


def choose_examples(
    pool: Sequence[EvaluationItem], tested: Sequence[EvaluationItem], count: int, seed: int
) -> list[EvaluationItem]:
    """Few-shot examples: a sample of the pool without tested questions, the same for the same seed.

    Raises:
        UserError: the pool has too few rows that are not tested.
    """
    questions = {item.question for item in tested}
    untested = [item for item in pool if item.question not in questions]
    if len(untested) < count:
        message = (
            f"fewShot asks for {count} examples, but fewShotFrom holds {len(untested)} rows that are not tested: "
            "lower fewShot or add rows"
        )
        raise UserError("TooFewExamples", message)
    return sorted(untested, key=lambda item: content_order({"item": item.digest}, seed))[:count]


def build_prompt(
    item: EvaluationItem, side: Side, examples: Sequence[EvaluationItem], renderer: Renderer
) -> str:
    """Prompt of an item for one side: system prompt (the side's, else the item's), examples as turns, question."""
    if item.messages is None:
        example_texts = [f"{example.text}{example.expected}" for example in examples]
        return "\n\n".join([*filter(None, [side.system_prompt]), *example_texts, item.text])
    system = [message for message in item.messages if message["role"] == "system"]
    if side.system_prompt is not None:
        system = [{"role": "system", "content": side.system_prompt}]
    example_turns = [turn for example in examples for turn in _turns(example)]
    turns = [message for message in item.messages if message["role"] != "system"]
    return renderer.prompt([*system, *example_turns, *turns], item.tools)


def _turns(example: EvaluationItem) -> list[Message]:
    messages = example.messages or ({"role": "user", "content": example.text},)
    turns = [message for message in messages if message["role"] != "system"]
    return [*turns, {"role": "assistant", "content": example.expected}]


def _item(row: Row, line: int) -> EvaluationItem:
    if not is_conversational(row):
        return EvaluationItem(row_digest(row), None, row["prompt"], None, row["completion"], line)
    messages: list[Message] = row["messages"] if "messages" in row else [*row["prompt"], *row["completion"]]
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    return EvaluationItem(
        row_digest(row), tuple(messages[:last]), "", row.get("tools"), messages[last]["content"], line
    )
