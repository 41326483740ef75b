"""Scorer that runs an answer's code against its item's tests, and the one that decides if an answer is right."""

import re
from typing import Protocol

from tunesmith_data.failures import InfrastructureError
from tunesmith_evaluation.statistics.kinds import ScoreKind

from .answers import Answer, Expected, Question
from .sandbox.confinement import ConfinementUnavailable
from .sandbox.runner import CodeResult
from .sandbox.server import SocketCodeRunner
from .scorer import Score, Scorer, TextScorer, binary
from .text_scorers import ExactMatch
from .tool_call_scorer import ToolCall

DEFAULT_TIMEOUT_SECONDS = 10.0
_CODE_BLOCK = re.compile(r"^[ \t]*```([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = frozenset({"", "python", "python3", "py"})


class CodeRunner(Protocol):
    """Runner of code in a sandbox: ``LocalCodeRunner`` or ``SocketCodeRunner``."""

    def run(self, code: str, tests: str, timeout_seconds: float) -> CodeResult:
        """Run code, and then its tests.

        Raises:
            ConfinementUnavailable: there is no sandbox; nothing was run.
        """


class CodeTests(TextScorer):
    """1 if the item's tests pass after the answer's Python code has run.

    The code is the first block that is marked as Python or not marked at all, else the whole answer.

    Args:
        runner: runs the code.
        timeout_seconds: time for code and tests of one answer.
    """

    name = "CodeTests"
    kind = ScoreKind.BINARY
    needs_text = False

    def __init__(self, runner: CodeRunner, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self._runner = runner
        self._timeout_seconds = timeout_seconds

    def _check(self, expected: Expected) -> str | None:
        if expected.tests is not None and expected.tests.strip():
            return None
        row = "a row" if expected.row is None else f"row {expected.row}"
        return (
            f'{row} has no tests: write Python code that raises an error if the answer is wrong into "tests"'
        )

    def score_text(self, expected: Expected, text: str) -> Score:
        """1 if the tests pass.

        Raises:
            InfrastructureError: the sandbox is away.
        """
        try:
            result = self._runner.run(find_code(text), expected.tests or "", self._timeout_seconds)
        except ConfinementUnavailable as error:
            raise _unavailable(error) from error
        return binary(result.passed, **({"failed": result.reason} if result.reason else {}))


def require_sandbox(runner: SocketCodeRunner) -> None:
    """Wait until a sandbox has run code.

    Raises:
        InfrastructureError: it is away, or can't confine code.
    """
    try:
        runner.wait()
        runner.run("", "", DEFAULT_TIMEOUT_SECONDS)
    except ConfinementUnavailable as error:
        raise _unavailable(error) from error


def _unavailable(error: ConfinementUnavailable) -> InfrastructureError:
    message = f"the code of answers can't be run, and was not: {error}"
    return InfrastructureError("SandboxUnavailable", message)


class RightAnswer(Scorer):
    """1 if an answer is right: by its tests where the item has some, by its calls, else by its text.

    Args:
        by_text: decides on text.
        by_tests: decides on code; None if there is no sandbox.
    """

    name = "RightAnswer"
    kind = ScoreKind.BINARY
    scores_calls = True

    def __init__(self, by_text: TextScorer | None = None, by_tests: CodeTests | None = None) -> None:
        self._by_text = by_text or ExactMatch()
        self._by_tests = by_tests
        self._by_calls = ToolCall()
        self.version = f"1 {self._by_text.name} {self._by_text.version}"

    def _check(self, expected: Expected) -> str | None:
        if expected.tests and self._by_tests is None:
            row = "a row" if expected.row is None else f"row {expected.row}"
            return f"{row} has tests, which can't be run without a sandbox: use CodeTests in a pod"
        return self._scorer_for(expected).check(expected)

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        return self._scorer_for(expected).score(question, expected, answer)

    def _scorer_for(self, expected: Expected) -> Scorer:
        if expected.tool_calls:
            return self._by_calls
        return self._by_tests if expected.tests and self._by_tests is not None else self._by_text


def find_code(text: str) -> str:
    """Python code in an answer."""
    blocks = (match[2] for match in _CODE_BLOCK.finditer(text) if match[1].lower() in _PYTHON)
    return next(blocks, text)
