"""Replies from all answerers and pods, continued from earlier attempts."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing

from tunesmith_data.failures import InternalError
from tunesmith_data.pod.workspace import Workspace
from tunesmith_evaluation.answering.interface import Answerer
from tunesmith_evaluation.items.requests import Reply, Request

from .journal import AnswerJournal
from .replies import Place, Replies, ReplyKey, request_place
from .shares import Shares, Unanswered, reply_of

#: Time between two uploads of the journals, for work files in a bucket.
SAVE_SECONDS = 60.0


def collect_replies(
    requests: Sequence[Request],
    answerers: Sequence[Answerer],
    workspace: Workspace,
    shares: Shares,
    clock: Callable[[], float] = time.monotonic,
) -> Replies | None:
    """Replies to all requests, of which this pod asks those of its share; None in all pods but the first.

    Answers of earlier attempts are taken from the journals. Answerers are asked one after the other, each once.

    Args:
        requests: requests of all shares.
        answerers: one for each side.
        workspace: place of the journals.
        shares: is told the replies of this share, and of those of the other pods.
        clock: monotonic seconds.

    Raises:
        Preempted: the pod received SIGTERM; the answers so far are on disk.
        StageError: nothing can be answered, or another pod is silent.
    """
    journal, share = AnswerJournal(workspace.own_answers), workspace.share
    found = _ask_share(
        [request for request in requests if share.holds(request.item)],
        answerers,
        journal,
        shares,
        _Saving(workspace, clock),
    )
    if share.count > 1:
        workspace.push(workspace.own_answers)
        if not share.is_first:
            shares.finish(found.values())
            return None
        unanswered = shares.wait()
        workspace.pull()
        found |= _replies_of_others(
            [request for request in requests if not share.holds(request.item)],
            answerers,
            AnswerJournal(workspace.own_answers),
            unanswered,
        )
    return _by_item(requests, found)


class _Saving:
    """Upload of the pod's journals, from time to time."""

    def __init__(self, workspace: Workspace, clock: Callable[[], float]) -> None:
        self._workspace, self._clock = workspace, clock
        self._saved = clock()

    def save(self, *, is_due: bool = False) -> None:
        """Upload them if it is due, or if the last upload was long ago."""
        if is_due or self._clock() - self._saved >= SAVE_SECONDS:
            self._workspace.push(self._workspace.own_answers)
            self._saved = self._clock()


def _ask_share(
    requests: Sequence[Request],
    answerers: Sequence[Answerer],
    journal: AnswerJournal,
    shares: Shares,
    saving: _Saving,
) -> dict[Place, Reply]:
    """Replies to the requests of this share by their place."""
    found: dict[Place, Reply] = {}
    remaining: list[tuple[Answerer, list[Request]]] = []
    for answerer in answerers:
        own = [request for request in requests if request.side in answerer.sides]
        earlier = {request_place(request): journal.find(request, answerer) for request in own}
        found |= {place: reply for place, reply in earlier.items() if reply is not None}
        remaining.append((answerer, [request for request in own if earlier[request_place(request)] is None]))
    shares.begin(len(requests))
    shares.add(found.values())
    for answerer, open_requests in remaining:
        if not open_requests:
            continue
        with closing(answerer.answer(open_requests)) as batches:
            for batch in batches:
                journal.add(batch, answerer)
                found |= {request_place(reply.request): reply for reply in batch}
                shares.add(batch)
                saving.save()
        saving.save(is_due=True)
    return found


def _replies_of_others(
    requests: Sequence[Request],
    answerers: Sequence[Answerer],
    journal: AnswerJournal,
    unanswered: Sequence[Unanswered],
) -> Iterator[tuple[Place, Reply]]:
    """Replies that other pods got, by their place.

    Raises:
        InternalError: one is missing.
    """
    problems = {(ReplyKey(found.side, found.suite, found.item), found.repeat): found for found in unanswered}
    by_side = {side: answerer for answerer in answerers for side in answerer.sides}
    for request in requests:
        place = request_place(request)
        reply = journal.find(request, by_side[request.side])
        if reply is None and place in problems:
            reply = reply_of(request, problems[place])
        if reply is None:
            message = f"no pod answered item {request.item} of suite {request.suite} for side {request.side}"
            raise InternalError("AnswerMissing", message)
        yield place, reply


def _by_item(requests: Sequence[Request], found: Mapping[Place, Reply]) -> Replies:
    replies: dict[ReplyKey, list[Reply]] = {}
    for request in requests:
        place = request_place(request)
        replies.setdefault(place[0], []).append(found[place])
    return replies
