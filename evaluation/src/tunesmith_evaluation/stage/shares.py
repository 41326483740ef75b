"""Shares of the items, one for each pod: their progress, and the first pod's wait for the others.

A pod tells it in a file of the workspace. The first pod adds the files up for the operator.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from pydantic import Field

from tunesmith_contract.base import Report
from tunesmith_contract.evaluation import Side
from tunesmith_contract.progress import AMOUNT, COMPLETION_TOKENS, CURRENCY, PROMPT_TOKENS
from tunesmith_contract.report import Count, SideUsage
from tunesmith_data.failures import InfrastructureError
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.workspace import Workspace
from tunesmith_evaluation.items.requests import Problem, Reply, Request

from .costs import sum_costs

#: Time between two looks at the files of the others, and between two writes of the own one.
POLL_SECONDS = 10.0
#: Time without news of the others after which the first pod gives up.
SILENT_SECONDS = 1800.0

_MINUTE = 60


class Unanswered(Report):
    """Request without an answer: its place, and the cause."""

    side: str
    suite: str
    item: str
    repeat: int
    problem: Problem
    message: str = ""
    prompt_tokens: Count | None = None


class ShareState(Report):
    """Progress of one share.

    Attributes:
        done: replies that are there.
        total: requests of the share.
        usage: tokens of prompts and answers by the name of the side.
        finished: all replies are there, and all answers are in the pod's journal.
        unanswered: requests without an answer, once it is finished.
    """

    done: Count = 0
    total: Count = 0
    usage: Mapping[str, tuple[Count, Count]] = Field(default_factory=dict)
    finished: bool = False
    unanswered: tuple[Unanswered, ...] = ()


class Shares:
    """Progress of all shares of a run.

    Args:
        sides: the sides.
        workspace: place of the files; it knows the share of this pod.
        progress: is told the progress of all shares, by the first pod alone.
        clock: monotonic seconds.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        sides: Sequence[Side],
        workspace: Workspace,
        progress: ProgressReporter,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sides, self._workspace, self._progress = sides, workspace, progress
        self._clock, self._sleep = clock, sleep
        self._share = workspace.share
        self._others = {index: ShareState() for index in range(self._share.count) if index > 0}
        self._looked = float("-inf")
        self._done = self._total = 0
        self._usage: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))

    def begin(self, total: int) -> None:
        """Take the number of requests of this share."""
        self._total = total

    def add(self, replies: Iterable[Reply]) -> None:
        """Count replies of this share, and tell it.

        Raises:
            Preempted: the pod received SIGTERM.
        """
        for reply in replies:
            self._done += 1
            prompt, completion = self._usage[reply.request.side]
            answered = (reply.answer.tokens or 0) if reply.answer else 0
            self._usage[reply.request.side] = prompt + (reply.prompt_tokens or 0), completion + answered
        self._tell()

    def finish(self, replies: Iterable[Reply]) -> None:
        """Tell the other pods that all answers of this share are in its journal."""
        unanswered = tuple(_unanswered(reply) for reply in replies if reply.answer is None)
        self._write(self._own().model_copy(update={"finished": True, "unanswered": unanswered}))

    def wait(self) -> list[Unanswered]:
        """Requests of the other shares without an answer, once all of them are finished.

        Raises:
            InfrastructureError: nothing was heard of a pod for too long.
            Preempted: the pod received SIGTERM, such as after another pod failed.
        """
        heard = self._clock()
        while open_shares := [index for index, state in self._others.items() if not state.finished]:
            if self._look():
                heard = self._clock()
            elif self._clock() - heard >= SILENT_SECONDS:
                raise _silent(open_shares, self._share.count)
            self._report()
            if not all(self._others[index].finished for index in open_shares):
                self._sleep(POLL_SECONDS)
        return [request for state in self._others.values() for request in state.unanswered]

    def _tell(self) -> None:
        due = self._clock() - self._looked >= POLL_SECONDS
        if self._share.count > 1 and due:
            if self._share.is_first:
                self._look()
            else:
                self._write(self._own())
        self._report()

    def _look(self) -> bool:
        """Read the files of the others; return True if one of them changed."""
        before = dict(self._others)
        for index, state in before.items():
            data = None if state.finished else self._read(index)
            if data is not None:
                self._others[index] = ShareState.model_validate_json(data)
        self._looked = self._clock()
        return before != self._others

    def _read(self, index: int) -> bytes | None:
        return self._workspace.read(self._workspace.path(self._workspace.share_uri(index)))

    def _write(self, state: ShareState) -> None:
        self._workspace.write(self._workspace.share_uri(self._share.index), state.to_json().encode())
        self._looked = self._clock()

    def _own(self) -> ShareState:
        return ShareState(done=self._done, total=self._total, usage=dict(self._usage))

    def _report(self) -> None:
        """Tell the progress to the operator; in the other pods only look for SIGTERM.

        Shares whose pods have told nothing yet count as long as this one.
        """
        states = [self._own(), *(self._others.values() if self._share.is_first else ())]
        usage = [self._usage_of(side.name, states) for side in self._sides]
        cost = sum_costs(self._sides, usage, ())
        metrics: dict[str, float | int | str] = {
            PROMPT_TOKENS: sum(used.prompt_tokens for used in usage),
            COMPLETION_TOKENS: sum(used.completion_tokens for used in usage),
        }
        if cost["amount"] is not None and cost["currency"] is not None:
            metrics |= {AMOUNT: cost["amount"], CURRENCY: cost["currency"]}
        total = sum(state.total or self._total for state in states)
        self._progress.update(sum(state.done for state in states), total, **metrics)

    @staticmethod
    def _usage_of(side: str, states: Iterable[ShareState]) -> SideUsage:
        used = [state.usage.get(side, (0, 0)) for state in states]
        return SideUsage(
            prompt_tokens=sum(prompt for prompt, _ in used),
            completion_tokens=sum(completion for _, completion in used),
        )


def _unanswered(reply: Reply) -> Unanswered:
    request = reply.request
    assert reply.problem is not None
    return Unanswered(
        side=request.side,
        suite=request.suite,
        item=request.item,
        repeat=request.repeat,
        problem=reply.problem,
        message=reply.message,
        prompt_tokens=reply.prompt_tokens,
    )


def reply_of(request: Request, unanswered: Unanswered) -> Reply:
    """Reply without an answer, as another pod told it."""
    return Reply(request, None, unanswered.problem, unanswered.message, unanswered.prompt_tokens)


def _silent(indexes: Sequence[int], count: int) -> InfrastructureError:
    pods = " and ".join(map(str, indexes))
    message = (
        f"nothing was heard for {SILENT_SECONDS / _MINUTE:.0f} minutes of pod {pods} of {count}, which share the items "
        "(counted from 0): look whether the pods of the Job run, wait for a node, or can't reach the workspace. "
        "Another attempt goes on from all answers"
    )
    return InfrastructureError("ShareSilent", message)
