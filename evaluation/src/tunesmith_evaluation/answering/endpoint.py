"""Answers of a side by a model behind an endpoint of the OpenAI API."""

import json
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from tunesmith_contract.base import canonical_json
from tunesmith_contract.evaluation import Side
from tunesmith_contract.generation import CallBudget
from tunesmith_data.endpoints.client import (
    KEY_REFUSED,
    Endpoint,
    EndpointBusy,
    RequestRefused,
    UnexpectedResponse,
)
from tunesmith_data.endpoints.journal import ChatAnswer, Journal, TokenUsage, read_answers
from tunesmith_data.endpoints.token_budget import BudgetExhausted, TokenBudget
from tunesmith_data.failures import InfrastructureError, UserError
from tunesmith_evaluation.items.requests import Problem, Reply, Request
from tunesmith_evaluation.metrics.answers import JSONValue

from .endpoint_requests import api_of, api_url, read_refusal, read_response, request_body

CONCURRENCY = 8

#: Time limit of one try: a part for the prompt and the queue, and a part for each token of the longest answer.
_TRY_SECONDS, _TOKEN_SECONDS = 300.0, 0.05

#: After so long without a reply an empty batch is given.
_IDLE_SECONDS = 1.0

#: So many refused requests, and no answer, are a fault of the settings and not of single items.
_REFUSED_AT_FIRST = 8

Now = Callable[[], float]


class _Stopped(Exception):
    """No more answers are wanted."""


class _PaidRequests:
    """Journal of requests that are paid for, within a budget if there is one."""

    def __init__(self, journal: Journal, limits: CallBudget | None) -> None:
        self._journal = journal
        self._budget = None if limits is None else TokenBudget(limits, journal)

    @contextmanager
    def reserve(self, key: str, max_usage: TokenUsage) -> Generator[Callable[[ChatAnswer], None]]:
        """Reserve the largest cost of a request; yields the function that records its answer.

        Raises:
            BudgetExhausted: the budget does not cover it.
        """
        if self._budget is None:
            yield partial(self._journal.put, key)
            return
        with self._budget.reserve(key, max_usage) as record_answer:
            yield record_answer


def _journal_entry(response: object, reply: Reply, max_usage: TokenUsage) -> ChatAnswer:
    """Entry of a response; where the endpoint tells no tokens, with the most that there can be."""
    answer = reply.answer
    told = answer is not None and answer.answer_tokens is not None
    tokens = (answer.answer_tokens or 0) + (answer.thinking_tokens or 0) if answer and told else None
    usage = TokenUsage(
        max_usage.prompt if reply.prompt_tokens is None else reply.prompt_tokens,
        max_usage.completion if tokens is None else tokens,
    )
    entry = json.dumps({"response": response, "seconds": answer.seconds if answer else None})
    return ChatAnswer(entry, bool(answer and not answer.truncated), usage)


class EndpointAnswerer:
    """Answerer of one side, whose model is behind an endpoint.

    Each response is written to a journal before it counts, those that come in after the run was stopped as well: a
    request that was answered is not paid for again.

    Args:
        side: the side, with its endpoint.
        secret: folder of the Secret with the endpoint's key.
        journal: its file of responses.
        upload: copies the file to lasting storage.
        concurrency: requests on their way at the same time.
        sleep: waits for a number of seconds; None: until that time is over or the answerer is closed.
        clock: monotonic seconds.
        others: files of responses of other pods, which are read alone.
        limits: limits on the spending of this pod; None: no limits.
    """

    def __init__(
        self,
        side: Side,
        secret: Path,
        journal: Path,
        upload: Callable[[Path], None],
        concurrency: int = CONCURRENCY,
        sleep: Callable[[float], None] | None = None,
        clock: Now = time.monotonic,
        others: Sequence[Path] = (),
        limits: CallBudget | None = None,
    ) -> None:
        assert side.endpoint is not None
        self._side, self._endpoint = side, side.endpoint
        self._secret, self._concurrency = secret, concurrency
        self._path, self._upload = journal, upload
        self._others, self._limits = others, limits
        self._stopped = threading.Event()
        self._sleep, self._clock = sleep or self._pause, clock
        self._name = f"the endpoint of side {side.name}"
        self._clients: dict[str, Endpoint] = {}
        self._lock = threading.Lock()
        self._answered = self._refused = 0

    @property
    def sides(self) -> tuple[str, ...]:
        """Name of the side."""
        return (self._side.name,)

    def revision(self, side: str) -> str:
        """Empty: an endpoint does not tell which weights answer."""
        return ""

    def identity(self, side: str) -> JSONValue:
        """URL, without the name of an API that may follow it, and name of the model."""
        return {"endpoint": api_url(self._endpoint.url, ""), "model": self._endpoint.model}

    def answer(self, requests: Sequence[Request]) -> Generator[Sequence[Reply]]:
        """Answer requests, several at a time; each reply is given as soon as it is there.

        A batch is empty where no reply came for a while, so that the run can stop meanwhile.

        Raises:
            UserError: the endpoint wants another key, URL or protocol, or refuses every request.
            InfrastructureError: it was busy or away at every try, for all requests.
        """
        with Journal(self._path, self._upload) as journal:
            answers = journal.answers
            for path in self._others:
                answers |= read_answers(path)
            earlier = [reply for request in requests if (reply := self._earlier(answers, request))]
            if earlier:
                yield earlier
            known = {id(reply.request) for reply in earlier}
            open_requests = [request for request in requests if id(request) not in known]
            self._open_clients(open_requests)
            paid = _PaidRequests(journal, self._limits)
            try:
                with closing(self._ask_all(open_requests, paid)) as batches:
                    yield from batches
            finally:
                for client in self._clients.values():
                    client.close()
        if requests and not self._answered and self._refused == len(requests):
            raise self._refuses_all("")

    def _open_clients(self, requests: Sequence[Request]) -> None:
        tokens = max((request.decoding.max_new_tokens for request in requests), default=0)
        for api in {api_of(request) for request in requests}:
            url, timeout = api_url(self._endpoint.url, api), _TRY_SECONDS + _TOKEN_SECONDS * tokens
            self._clients[api] = Endpoint(url, self._name, self._secret, timeout, self._sleep)

    def _ask_all(self, requests: Sequence[Request], paid: "_PaidRequests") -> Generator[Sequence[Reply]]:
        """Replies in the order in which they come in; when it is closed, those on their way are waited for."""
        waiting = iter(requests)
        running: set[Future[Reply]] = set()
        pool = ThreadPoolExecutor(self._concurrency)
        try:
            while True:
                while len(running) < self._concurrency and (request := next(waiting, None)):
                    running.add(pool.submit(self._ask, request, paid))
                if not running:
                    return
                done, running = wait(running, _IDLE_SECONDS, FIRST_COMPLETED)
                yield [future.result() for future in done]
        finally:
            self._stopped.set()
            pool.shutdown(cancel_futures=True)

    def _ask(self, request: Request, paid: "_PaidRequests") -> Reply:
        """Reply to one request, which is in the journal when this returns.

        Raises:
            UserError, InfrastructureError: as ``answer``.
        """
        if not request.generates or request.expected is not None:
            message = "an endpoint does not tell the probabilities of given tokens"
            return Reply(request, None, Problem.UNANSWERED, message)
        client, before = self._clients[api_of(request)], self._answered
        body = request_body(self._endpoint, request)
        max_usage = TokenUsage(len(canonical_json(body)), request.decoding.max_new_tokens)

        def post() -> Reply:
            with paid.reserve(self._key(request), max_usage) as record_answer:
                started = self._clock()
                try:
                    response = client.post_once(body)
                    reply = read_response(request, response, self._clock() - started, self._name)
                except UnexpectedResponse as error:
                    if not self._answered:
                        raise
                    # Others were answered by the same settings: something in front of the endpoint answered this one.
                    raise EndpointBusy(error.message) from error
                record_answer(_journal_entry(response, reply, max_usage))
            with self._lock:
                self._answered += 1
            return reply

        try:
            return client.retry_while_busy(post)
        except BudgetExhausted:
            message = f"the budget of {self._name} does not cover the request"
            return Reply(request, None, Problem.BEYOND_BUDGET, message)
        except RequestRefused as error:
            return self._refusal(request, error.message)
        except InfrastructureError as error:
            if self._answered == before:
                raise
            # Others were answered meanwhile: it is this request that the endpoint can't answer.
            return Reply(request, None, Problem.UNANSWERED, error.message)
        except UserError as error:
            raise self._explained(error, request) from error

    def _earlier(self, answers: Mapping[str, ChatAnswer], request: Request) -> Reply | None:
        """Reply from the journals; None if the request has not been answered."""
        found = answers.get(self._key(request))
        if found is None:
            return None
        entry = json.loads(found.text)
        self._answered += 1
        return read_response(request, entry["response"], entry["seconds"], self._name)

    def _key(self, request: Request) -> str:
        return request.key(self.identity(self._side.name))

    def _refusal(self, request: Request, message: str) -> Reply:
        with self._lock:
            self._refused += 1
            hopeless = not self._answered and self._refused >= _REFUSED_AT_FIRST
        if hopeless:
            raise self._refuses_all(f" ({message})")
        return read_refusal(request, message)

    def _refuses_all(self, detail: str) -> UserError:
        message = (
            f"{self._name} at {self._endpoint.url} refuses every request{detail}: check the name of the model, and "
            "whether it takes tools, stop, temperature and templateArguments as they are set"
        )
        return UserError("EndpointRefused", message)

    def _explained(self, error: UserError, request: Request) -> UserError:
        """The error; of plain text with what else could be wrong."""
        if request.prompt.messages or error.reason == KEY_REFUSED:
            return error
        message = (
            f"{error.message}. The items are plain text, which is sent to /completions: if the endpoint has no such "
            "API, write the items as messages"
        )
        return UserError("EndpointRefused", message)

    def _pause(self, seconds: float) -> None:
        """Wait, unless the answerer is closed.

        Raises:
            _Stopped: it was.
        """
        if self._stopped.wait(seconds):
            raise _Stopped
