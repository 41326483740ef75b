"""Markdown of a report, fit for a comment on a pull request: a short table first, details folded.

All texts of users are escaped. Names stand in ``<code>``, longer texts in ``<pre>``: there, GitHub and GitLab follow no
mentions (``@team``) and no references (``#12``). In sentences, a space without width keeps them apart.
"""

import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tunesmith_contract.evaluation import Tier
from tunesmith_contract.shared_rules.verdict import Verdict
from tunesmith_data.html_pages.text_filters import amount, duration, number, percent, reveal_controls, shorten

from . import sentences
from .document import EvaluationDocument, GateReport, WorstItem

#: GitHub refuses comments of more than 65,536 characters.
MAX_MARKDOWN_BYTES = 60_000

#: Characters of a location, which is of use only when it is whole.
_URI = 512

_MARKS: dict[Verdict, str] = {Verdict.PASS: "✅", Verdict.FAIL: "❌", Verdict.INCONCLUSIVE: "❔"}
#: Characters that Markdown, math, tables, autolinks or emoji give a meaning, and those that begin a list or heading.
_SPECIAL = re.compile(r"[\\`*_\[\]<>#|~@$&]|:(?=\S)|(?<=www)\.|^[-+=]|(?<=^\d)[.)](?=\s)")
#: Mentions of people and references to issues, which are looked for after entities are resolved.
_REFERENCE = re.compile(r"(?<![\w&])(@|#)(?=\w)|(?<=\bGH)-(?=\d)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MarkdownLimits:
    """Limits on the contents.

    Attributes:
        rows: maximum rows of a table.
        items: maximum items that got worse.
        excerpt: maximum characters of a question or an answer.
        text: maximum characters of a sentence.
        name: maximum characters of a name.
    """

    rows: int
    items: int
    excerpt: int
    text: int
    name: int


#: The first limits with which the text is short enough are used; the last ones always suffice.
_LIMITS = (
    MarkdownLimits(rows=50, items=5, excerpt=300, text=600, name=60),
    MarkdownLimits(rows=30, items=5, excerpt=200, text=300, name=60),
    MarkdownLimits(rows=10, items=3, excerpt=100, text=100, name=24),
    MarkdownLimits(rows=5, items=0, excerpt=0, text=60, name=12),
)


def render_markdown(document: EvaluationDocument) -> str:
    """The report as GitHub-flavored Markdown of at most MAX_MARKDOWN_BYTES."""
    texts = ("\n".join(_lines(document, limits)) + "\n" for limits in _LIMITS)
    return next(text for text in texts if len(text.encode()) <= MAX_MARKDOWN_BYTES)


def _lines(document: EvaluationDocument, limits: MarkdownLimits) -> Iterator[str]:
    verdict = document.verdict
    yield f"### {_MARKS[verdict.verdict]} {verdict.verdict}: {_code(document.run.name, limits)}"
    yield ""
    yield _text(verdict.message, limits)
    yield ""
    yield from (
        line for warning in document.warnings[: limits.rows] for line in (f"> {_text(warning, limits)}", "")
    )
    yield from _gates(document, limits)
    if not document.gates:
        yield from _results(document, limits)
    else:
        yield from _folded("All results", [*_results(document, limits)])
    yield from _folded("Items that got worse", [*_worst(document, limits)])
    yield from _folded("Slices", [*_slices(document, limits)])
    yield from _folded("Items left out, contamination", [*_omissions(document, limits)])
    yield from _folded("Configuration", [*_configuration(document, limits)])


def _gates(document: EvaluationDocument, limits: MarkdownLimits) -> Iterator[str]:
    def cells(gate: GateReport) -> Sequence[str]:
        result = document.metric(gate.suite, gate.metric)
        measured = result is not None and result.delta is not None
        said = " ".join(filter(None, [gate.message, f"{sentences.more_items(gate).capitalize()}."]))
        note = said if sentences.more_items(gate) else gate.message
        advisory = " (advisory)" if gate.tier is Tier.ADVISORY else ""
        return (
            f"{_MARKS[gate.verdict]} {gate.verdict}{advisory}",
            f"{_code(gate.suite, limits)} {_code(gate.metric, limits)}",
            _text(sentences.expectation(gate), limits),
            _text(sentences.change(result), limits) if measured and result else "not measured",
            _text(sentences.gate_p_values(gate), limits),
            _text(note, limits),
        )

    head = ("", "Gate", "Expected", "Change", "p to pass / fail", "")
    yield from _table(head, map(cells, document.gates[: limits.rows]))
    yield from _rest(len(document.gates), limits.rows, "gates")


def _results(document: EvaluationDocument, limits: MarkdownLimits) -> Iterator[str]:
    first, second = document.sides[0].name, document.sides[1].name
    rows = []
    for result in document.results[: limits.rows]:
        scores = {each.side: each.score.value for each in result.scores}
        rows.append(
            (
                f"{_code(result.suite, limits)} {_code(result.metric, limits)}",
                *(number(scores[name]) if name in scores else "–" for name in (first, second)),  # noqa: RUF001
                _text(sentences.change(result), limits),
                sentences.bounds(result.delta) if result.delta else "–",  # noqa: RUF001
                f"{result.wins:,} / {result.losses:,} / {result.ties:,}",
                f"{result.items:,}",
            )
        )
    head = (
        "Metric",
        _code(first, limits),
        _code(second, limits),
        "Change",
        "Interval",
        "Better / worse / equal",
        "Items",
    )
    if rows:
        yield from _table(head, rows)
        yield from _rest(len(document.results), limits.rows, "results")


def _worst(document: EvaluationDocument, limits: MarkdownLimits) -> Iterator[str]:
    shown = document.worst[: limits.items]
    for item in shown:
        yield from _worst_item(item, limits)
    total = max(document.worst_total, len(document.worst))
    if total > len(shown):
        yield f"{len(shown)} of {total:,} items are shown. {_place_of_all(document, limits)}"
        yield ""


def _place_of_all(document: EvaluationDocument, limits: MarkdownLimits) -> str:
    page = f"<code>report.html</code> beside this file shows {len(document.worst):,} side by side"
    if document.details is None:
        return f"{page}."
    return f"{page}; all items with all answers are in {_code(document.details.uri, limits, _URI)}."


def _worst_item(item: WorstItem, limits: MarkdownLimits) -> Iterator[str]:
    line = f", line {item.line:,}" if item.line else ""
    yield f"**{_code(item.suite, limits)}{line}**: {_code(item.metric, limits)} fell by {number(item.loss)}"
    yield ""
    parts = [("Question", item.question), ("Expected", item.expected)]
    parts += [(f"{answer.side}, score {number(answer.score)}", answer.text) for answer in item.answers]
    for name, text in parts:
        if text or name != "Expected":
            yield f"{_text(name, limits)}:"
            yield ""
            yield f"<pre>{_preformatted(text, limits.excerpt)}</pre>"
            yield ""


def _slices(document: EvaluationDocument, limits: MarkdownLimits) -> Iterator[str]:
    rows = [
        (
            f"{_code(each.column, limits)} = {_code(each.value, limits)}",
            f"{_code(each.suite, limits)} {_code(each.metric, limits)}",
            sentences.bounds(each.delta),
            f"{each.items:,}",
        )
        for each in document.slices[: limits.rows]
    ]
    if rows:
        yield from _table(("Slice", "Metric", "Interval of the change", "Items"), rows)
        yield from _rest(len(document.slices), limits.rows, "slices")


def _omissions(document: EvaluationDocument, limits: MarkdownLimits) -> Iterator[str]:
    for suite in document.suites[: limits.rows]:
        counts = "; ".join(f"{count:,} {_text(name, limits)}" for name, count in sentences.left_out(suite))
        problem = f" {_text(suite.problem, limits)}" if suite.problem else ""
        compared = f"{suite.used:,} of {suite.selected:,} items compared"
        yield f"- {_code(suite.name, limits)}: {compared}{'; ' if counts else ''}{counts}.{problem}"
    for side in document.contamination.sides[: limits.rows]:
        checked = "checked against its training data" if side.checked else "training data not checked"
        yield f"- {_code(side.side, limits)}: {checked}. {_text(side.message, limits)}".rstrip()
    if not document.contamination.sides:
        yield "- The items were not checked against training data."
    yield ""


def _configuration(document: EvaluationDocument, limits: MarkdownLimits) -> Iterator[str]:
    run = document.run
    yield f"- Policy digest: `{document.policy.digest}`"
    if document.details:
        yield f"- Items with all answers: {_code(document.details.uri, limits, _URI)} `{document.details.digest}`"
    if run.runs is not None and run.runs > 1:
        yield f"- Runs of this candidate and policy: {run.runs:,}"
    cost = f", {amount(run.amount, _text(run.currency, limits))}" if run.amount is not None else ""
    yield f"- Duration: {duration((run.ended - run.started).total_seconds())}{cost}"
    for side in document.sides[: limits.rows]:
        prompted = f"{side.few_shot} examples" + (
            ", its own system prompt" if side.system_prompt is not None else ""
        )
        yield f"- {_code(side.name, limits)} ({side.kind}): {_code(sentences.identity(side), limits)}, {prompted}"
    if document.decoding:
        written = json.dumps(document.decoding, sort_keys=True, ensure_ascii=False)
        yield f"- Decoding: {_code(written, limits, limits.text)}"
    leaked = document.contamination.leaked
    if leaked:
        used = sum(suite.used for suite in document.suites)
        yield f"- Left out as leaked: {leaked:,} items, {percent(leaked / (leaked + used))} of what was there"
    yield f"- Tunesmith {_text(run.tunesmith_version, limits)}"
    yield ""


def _folded(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from ("<details>", f"<summary>{title}</summary>", "", *lines, "</details>", "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    written = [f"| {' | '.join(row)} |" for row in rows]
    if written:
        yield f"| {' | '.join(head)} |"
        yield "|---" * len(head) + "|"
        yield from written
        yield ""


def _rest(count: int, shown: int, what: str) -> Iterator[str]:
    if count > shown:
        yield f"The first {shown} of {count:,} {what} are shown."
        yield ""


def _text(text: str, limits: MarkdownLimits) -> str:
    """Text on one line in which no character has a meaning for Markdown, and nobody is mentioned."""
    parts = _REFERENCE.split(_flat(text, limits.text))
    return "".join(
        _escape(part or "-") + "&#8203;" if index % 2 else _escape(part) for index, part in enumerate(parts)
    )


def _code(name: str, limits: MarkdownLimits, characters: int | None = None) -> str:
    """Name on one line, in the type of code."""
    return f"<code>{_escape(_flat(name, characters or limits.name))}</code>"


def _flat(text: str, characters: int) -> str:
    return " ".join(reveal_controls(shorten(text, characters)).split())


def _escape(text: str) -> str:
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", text)


def _preformatted(text: str, characters: int) -> str:
    return html.escape(reveal_controls(shorten(text, characters)), quote=False)
