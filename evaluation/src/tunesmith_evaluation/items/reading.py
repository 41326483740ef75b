"""Items read from files, by the same readers and checks as training data."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tunesmith_contract.evaluation import Suite
from tunesmith_data.failures import DataError
from tunesmith_data.rows.data_files import DataFile
from tunesmith_data.rows.findings import Finding, quote
from tunesmith_data.rows.reading import InvalidRow, RowSource, SourceRow, raise_findings
from tunesmith_data.rows.schema.formats import EVALUATION
from tunesmith_data.rows.table.split import content_order
from tunesmith_evaluation.metrics.scorer import Scorer

from .item import REFERENCE_MEMBERS, EvaluationItem, group_repeated_questions, make_item

#: Whole numbers below it are the same as floats.
_LARGEST_WHOLE = 2**53


class _ItemReader:
    """Reader of the items of one suite.

    Args:
        suite: format and columns of its rows.
        context_columns: columns of passages that sides ask for.
    """

    def __init__(self, suite: Suite, context_columns: Sequence[str]) -> None:
        self._suite = suite
        self._contexts = tuple(context_columns)
        labels = (metric.judge.human_label_column for metric in suite.metrics if metric.judge)
        self._label = next(filter(None, labels), None)
        self._rows = 0
        self._without_passages: dict[str, list[Finding]] = {column: [] for column in context_columns}

    @property
    def missing_passages(self) -> list[Finding]:
        """Rows without passages, of columns that other rows have: a suite may lack a column as a whole."""
        lacking = (findings for findings in self._without_passages.values() if len(findings) < self._rows)
        return [finding for findings in lacking for finding in findings]

    def read(self, files: Sequence[DataFile]) -> Iterator[EvaluationItem | list[Finding]]:
        """Items, or the findings of a row that is none."""
        suite = self._suite
        carried = [*self._contexts, *suite.slice_columns, *REFERENCE_MEMBERS]
        carried += filter(None, [suite.group_column, self._label])
        source = RowSource(files, suite.format, EVALUATION, columns=suite.columns, carry=carried)
        for row in source:
            if isinstance(row, InvalidRow):
                yield list(row.findings)
            else:
                self._rows += 1
                findings = [finding.at(row.file, row.line) for finding in self._check(row)]
                yield findings or self._item(row)

    def _check(self, row: SourceRow) -> Iterator[Finding]:
        columns = [
            ("group", self._suite.group_column),
            *(("slice", name) for name in self._suite.slice_columns),
        ]
        for use, column in columns:
            if column and _scalar(row.carried[column]) is None:
                advice = f'write "{column}" as text or a number in each row: it is the {use} of the item'
                yield Finding("missing_field", quote(row.carried[column]), advice, column)
        for column in self._contexts:
            advice = f'write "{column}" as text, or as a list of texts: the passages for the question'
            finding = Finding("missing_field", quote(row.carried[column]), advice, column)
            if row.carried[column] is None:
                self._without_passages[column].append(finding.at(row.file, row.line))
            elif _passages(row.carried[column]) is None:
                yield finding
        types = {"tests": str, "json_schema": (str, dict), "refuses": bool}
        for member, kind in types.items():
            value = row.carried[member]
            if value is not None and not isinstance(value, kind):  # type: ignore[arg-type]
                yield Finding(
                    "data_type", quote(value), f'write "{member}" as docs/evaluation.md says', member
                )

    def _item(self, row: SourceRow) -> EvaluationItem | list[Finding]:
        carried, suite = row.carried, self._suite
        reference = {member: carried[member] for member in REFERENCE_MEMBERS if carried[member] is not None}
        if isinstance(schema := reference.get("json_schema"), dict):
            reference["json_schema"] = json.dumps(schema)
        if self._label is not None:
            reference["human_label"] = _scalar(carried[self._label])
        try:
            return make_item(
                row.row,
                file=row.file,
                line=row.line,
                group=_scalar(carried[suite.group_column]) if suite.group_column else None,
                slices={column: _scalar(carried[column]) or "" for column in suite.slice_columns},
                passages={column: _passages(carried[column]) or () for column in self._contexts},
                reference=reference,
            )
        except ValueError as error:
            return [Finding("expected_answer", "the expected answer", str(error)).at(row.file, row.line)]


class ReadItems(NamedTuple):
    """Items of a suite in the order of its rows, and the number of rows that repeat an earlier one."""

    items: list[EvaluationItem]
    repeated: int


def read_items(
    files: Sequence[DataFile],
    suite: Suite,
    scorers: Mapping[str, Scorer] | None = None,
    context_columns: Sequence[str] = (),
) -> ReadItems:
    """Items of a suite, at least one.

    Args:
        files: files of its rows.
        suite: format and columns of its rows.
        scorers: scorers of its metrics by key, which must be able to score each item.
        context_columns: columns of passages that sides ask for.

    Raises:
        DataError: a row fails a check, or a metric can't score against its expected answer.
    """
    items: dict[str, EvaluationItem] = {}
    findings: list[Finding] = []
    repeated = 0
    reader = _ItemReader(suite, context_columns)
    for outcome in reader.read(files):
        if isinstance(outcome, EvaluationItem):
            repeated += outcome.digest in items
            items.setdefault(outcome.digest, outcome)
        else:
            findings += outcome
    findings += reader.missing_passages
    if findings:
        raise_findings(findings)
    unique = group_repeated_questions(list(items.values()))
    check_items(unique, scorers or {}, suite.name)
    return ReadItems(unique, repeated)


def check_items(items: Sequence[EvaluationItem], scorers: Mapping[str, Scorer], suite: str) -> None:
    """Check that all metrics can score all items.

    Raises:
        DataError: one can't; the message says what to write, or which metric to use.
    """
    findings = [
        Finding("expected_answer", problem, f"{_list(keys)} can't score this row").at(item.file, item.line)
        for item in items
        for problem, keys in _problems(item, scorers).items()
    ]
    if findings:
        raise_findings(findings)
    for key, scorer in scorers.items():
        problem = scorer.check_suite([item.expected for item in items])
        if problem is not None:
            raise DataError("UnsuitableItems", f"suite {suite}, metric {key}: {problem}")


def _problems(item: EvaluationItem, scorers: Mapping[str, Scorer]) -> dict[str, list[str]]:
    """Keys of the metrics that can't score an item, by the reason."""
    keys: dict[str, list[str]] = {}
    for key, scorer in scorers.items():
        problem = scorer.check(item.expected)
        if problem is not None:
            keys.setdefault(problem, []).append(key)
    return keys


def _list(names: Sequence[str]) -> str:
    """Names as a sentence has them: ``a, b and c``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def sample_items(items: Sequence[EvaluationItem], limit: int | None, seed: int) -> list[EvaluationItem]:
    """At most ``limit`` items in their order, chosen by content and seed: the order of the rows does not matter."""
    if limit is None or limit >= len(items):
        return list(items)
    order = sorted(range(len(items)), key=lambda index: content_order({"item": items[index].digest}, seed))
    return [items[index] for index in sorted(order[:limit])]


def _scalar(value: Any) -> str | None:
    """Text of a text, number or truth value; None for anything else, and for empty text.

    Equal numbers have equal texts, however they are written: 2 and 2.0 are one group.
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_WHOLE:
        value = int(value)
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def _passages(value: Any) -> tuple[str, ...] | None:
    """Passages of a text or a list of texts; None for anything else. There may be none: nothing was retrieved."""
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    if isinstance(value, list) and all(isinstance(passage, str) for passage in value):
        return tuple(value)
    return None
