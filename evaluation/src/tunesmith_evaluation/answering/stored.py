"""Answers of a side that an earlier run stored."""

from collections.abc import Generator, Sequence
from functools import cached_property

from tunesmith_contract.evaluation import Side
from tunesmith_data.failures import UserError
from tunesmith_data.pod.storage import Storage, file_digest
from tunesmith_evaluation.items.items_file import StoredAnswer, StoredAnswers
from tunesmith_evaluation.items.requests import Problem, Reply, Request
from tunesmith_evaluation.metrics.answers import Answer, JSONValue
from tunesmith_evaluation.metrics.reading import read_message

#: Replies of one batch.
_BATCH = 256

_TRUNCATED = "Length"
_PROBLEMS = frozenset(Problem)


class StoredAnswerer:
    """Answerer of one side, whose answers are read from the items file of an earlier run.

    An answer counts for an item of the same suite and the same digest. Items that the file lacks are not answered, nor
    are those whose stored answer a smaller limit than the suite's cut off: the other side may go on longer.

    Args:
        side: the side, with its stored answers.
        storage: storage of the file.
    """

    def __init__(self, side: Side, storage: Storage) -> None:
        assert side.answers is not None
        self._side, self._source, self._storage = side, side.answers, storage

    @property
    def sides(self) -> tuple[str, ...]:
        """Name of the side."""
        return (self._side.name,)

    def revision(self, side: str) -> str:
        """Digest of the file."""
        return self._source.digest

    def identity(self, side: str) -> JSONValue:
        """Digest of the file, and the name of the side in it."""
        return {"answers": self._source.digest, "side": self._source.side}

    @cached_property
    def _answers(self) -> StoredAnswers:
        """Answers in the file.

        Raises:
            UserError: there is no such file, or its digest is another.
            DataError: a line is no item, or the file has no answers of the side.
        """
        path = self._storage.dataset_file(self._source.uri)
        actual = file_digest(path)
        if actual != self._source.digest:
            message = (
                f"{self._source.uri} is {actual}, not {self._source.digest}: write its digest, as status.answers of "
                "the run shows it"
            )
            raise UserError("AnswersChanged", message)
        return StoredAnswers(path, self._source.side)

    def answer(self, requests: Sequence[Request]) -> Generator[Sequence[Reply]]:
        """Answer requests from the file.

        Raises:
            UserError, DataError: the file is missing, has changed, or holds no answers of the side.
        """
        for start in range(0, len(requests), _BATCH):
            yield [self._reply(request) for request in requests[start : start + _BATCH]]

    def _reply(self, request: Request) -> Reply:
        if not request.generates or request.expected is not None:
            message = "stored answers do not tell the probabilities of given tokens"
            return Reply(request, None, Problem.UNANSWERED, message)
        stored = self._answers.find(request.suite, request.item)
        if request.repeat >= len(stored):
            message = f"{self._source.uri} holds {len(stored)} answers of side {self._source.side} to it"
            if request.suite not in self._answers.suites:
                known = ", ".join(sorted(self._answers.suites))
                message = (
                    f"{self._source.uri} holds no answers of side {self._source.side} to suite {request.suite}: it has "
                    f"answers to {known}; give the suite that name"
                )
            return Reply(request, None, Problem.UNANSWERED, message)
        found = stored[request.repeat]
        limit = request.decoding.max_new_tokens
        if found.finish_reason == _TRUNCATED and found.tokens is not None and found.tokens < limit:
            message = (
                f"the stored answer was cut off after {found.tokens:,} tokens, and suite {request.suite} allows "
                f"{limit:,}: write maxNewTokens: {found.tokens}, or generate it anew"
            )
            return Reply(request, None, Problem.UNANSWERED, message)
        if found.finish_reason in _PROBLEMS:
            problem = Problem(found.finish_reason)
            return Reply(request, None, problem, "it had no answer when the answers were stored")
        return Reply(request, _read(found, request), prompt_tokens=found.prompt_tokens)


def _read(stored: StoredAnswer, request: Request) -> Answer:
    """Answer as it would have been read when it was generated; calls may be in a member of their own."""
    message = {"content": stored.text, "tool_calls": list(stored.tool_calls or ())}
    truncated = stored.finish_reason == _TRUNCATED
    answer = read_message(message, tools=request.prompt.tools, truncated=truncated)
    return answer.with_usage(answer_tokens=stored.tokens, seconds=stored.seconds)
