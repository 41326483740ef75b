"""Scores of a suite's answers by its container, in the form of all other scores."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tunesmith_contract.evaluation import Suite
from tunesmith_contract.evaluation_container import (
    INPUT,
    SUITES_FOLDER,
    ContainerAnswer,
    ContainerCall,
    ContainerConfig,
    ContainerItem,
)
from tunesmith_data.failures import UserError
from tunesmith_evaluation.items.item import EvaluationItem
from tunesmith_evaluation.metrics.answers import Answer, Call
from tunesmith_evaluation.metrics.scorer import Score

from .container import ContainerBeside, LocalProcess, ScoringProgram, make_folders, score_with_container
from .container_files import ContainerScores

log = logging.getLogger(__name__)

#: Answers of a side to the repeats of each item, in the order of the items; none where it did not answer.
SideAnswers = Sequence[Sequence[Answer]]


def exchange_folder(suite: str, root: Path = Path(SUITES_FOLDER)) -> Path:
    """Folder in the evaluating pod that it shares with the container of a suite."""
    return root / suite


def score_by_container(
    suite: Suite,
    items: Sequence[EvaluationItem],
    answers: Mapping[str, SideAnswers],
    root: Path = Path(SUITES_FOLDER),
) -> dict[str, list[Score | None]]:
    """Scores by a suite's container, by name of the side in the order of the items; None where it did not answer.

    The container runs in this pod, beside this one. On a machine without its folders its command runs as a process.

    Args:
        suite: a suite with a container.
        items: items that were asked.
        answers: answers by name of the side, the candidate first.
        root: folder of the folders that this pod shares with containers.

    Raises:
        UserError: it does not run in this pod, and names no command that could run here.
    """
    config, described = describe_exchange(suite, items, answers)
    with _running(suite, root) as (folder, program):
        result = score_with_container(folder, config, described, program)
    if problems := result.describe():
        log.warning("suite %s, container: %s", suite.name, problems)
    return scores_by_side(result, items, answers)


@contextmanager
def _running(suite: Suite, root: Path) -> Iterator[tuple[Path, ScoringProgram]]:
    """Folder that is shared with the program of a suite's container, and the program."""
    assert suite.container is not None
    folder = exchange_folder(suite.name, root)
    if (folder / INPUT).is_dir():
        yield folder, ContainerBeside()
        return
    if not suite.container.command:
        message = f"suite {suite.name}: its container does not run on this machine: write its command to run it here"
        raise UserError("ContainerUnavailable", message)
    with tempfile.TemporaryDirectory() as temporary:
        make_folders(Path(temporary))
        try:
            with LocalProcess.started(suite.container.command, Path(temporary)) as program:
                yield Path(temporary), program
        except OSError as error:
            message = f"suite {suite.name}: the command of its container can't be started: {error}"
            raise UserError("ContainerUnavailable", message) from error


def describe_exchange(
    suite: Suite, items: Sequence[EvaluationItem], answers: Mapping[str, SideAnswers]
) -> tuple[ContainerConfig, list[ContainerItem]]:
    """Input of a suite's container.

    Args:
        suite: a suite with a container.
        items: items that were asked.
        answers: answers by name of the side, the candidate first.
    """
    assert suite.container is not None
    config = ContainerConfig(
        suite=suite.name,
        sides=tuple(answers),
        items=len(items),
        repeats=suite.repeats,
        timeout_seconds=suite.container.timeout_seconds,
    )
    described = [
        _describe_item(item, {side: some[index] for side, some in answers.items()})
        for index, item in enumerate(items)
    ]
    return config, described


def scores_by_side(
    result: ContainerScores, items: Sequence[EvaluationItem], answers: Mapping[str, SideAnswers]
) -> dict[str, list[Score | None]]:
    """Scores by name of the side in the order of the items; None where the side did not answer."""
    return {
        side: [_score(result, item.digest, side) if some[index] else None for index, item in enumerate(items)]
        for side, some in answers.items()
    }


def _score(result: ContainerScores, digest: str, side: str) -> Score:
    score = result.scores[digest, side]
    detail = dict(score.detail)
    if score.score is None:
        detail["reason"] = score.reason or "the container gave no reason"
    return Score(score.score, detail)


def _describe_item(item: EvaluationItem, answers: Mapping[str, Sequence[Answer]]) -> ContainerItem:
    return ContainerItem(
        digest=item.digest,
        line=item.line,
        prompt=None if item.messages else item.text,
        messages=tuple(dict(message) for message in item.messages) or None,
        tools=tuple(dict(tool) for tool in item.tools) or None,
        expected=item.expected.text,
        expected_calls=_calls(item.expected.tool_calls),
        answers={
            side: tuple(
                ContainerAnswer(
                    text=answer.text,
                    thinking=answer.thinking,
                    complete=answer.complete,
                    truncated=answer.truncated,
                    tool_calls=_calls(answer.tool_calls),
                )
                for answer in some
            )
            for side, some in answers.items()
        },
    )


def _calls(calls: Sequence[Call]) -> tuple[ContainerCall, ...]:
    return tuple(ContainerCall(name=call.name, arguments=call.arguments) for call in calls)
