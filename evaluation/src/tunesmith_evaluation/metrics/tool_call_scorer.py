"""Scorer of calls of tools."""

from collections.abc import Sequence

from tunesmith_evaluation.statistics.kinds import ScoreKind

from .answers import Answer, Call, Expected, Question
from .json_values import json_equal
from .scorer import MAX_NAMES, Score, Scorer, binary


class ToolCall(Scorer):
    """1 if the answer makes exactly the expected calls: names equal, arguments equal as JSON, in any order.

    Where text is expected, 1 if the answer has text and calls no tool.
    """

    name = "ToolCall"
    kind = ScoreKind.BINARY
    scores_calls = True

    def check_suite(self, items: Sequence[Expected]) -> str | None:
        """A suite without any expected call can't tell models apart."""
        if any(expected.tool_calls for expected in items):
            return None
        return "no row expects a call of a tool: write tool_calls in the last turn, or use another metric"

    def _check(self, expected: Expected) -> str | None:
        if expected.tool_calls or expected.text.strip():
            return None
        return f"{expected.subject} has neither text nor a call: write one of them"

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        if not expected.tool_calls:
            spoken = bool(answer.text.strip()) and not answer.calls_tools
            return binary(spoken, extra=_names(answer.tool_calls))
        missing, extra = compare_calls(expected.tool_calls, answer.tool_calls)
        right = not missing and not extra and not answer.malformed_calls
        return binary(
            right,
            missing=_names(missing),
            extra=_names(extra),
            malformed=answer.malformed_calls,
        )


def compare_calls(wanted: Sequence[Call], found: Sequence[Call]) -> tuple[list[Call], list[Call]]:
    """Calls that are missing, and calls that are superfluous."""
    rest = list(found)
    missing = []
    for call in wanted:
        match = next((index for index, other in enumerate(rest) if _same(call, other)), None)
        if match is None:
            missing.append(call)
        else:
            del rest[match]
    return missing, rest


def _same(left: Call, right: Call) -> bool:
    try:
        return left.name == right.name and json_equal(left.arguments, right.arguments)
    except RecursionError:
        return False


def _names(calls: Sequence[Call]) -> list[str]:
    return [call.name for call in calls[:MAX_NAMES]]
