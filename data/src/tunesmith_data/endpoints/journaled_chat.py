"""Chat endpoint with a journal: each request is sent once, even after a restart."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.methods import ChatEndpoint
from tunesmith_data.rows.schema.formats import Row

from .chat import TIMEOUT_SECONDS, chat_body, completions_url, read_answer
from .client import LONGEST_WAIT_SECONDS, Endpoint, RequestRefused, UnexpectedResponse
from .journal import ChatAnswer, Journal, TokenUsage
from .parallel_calls import call_all
from .token_budget import BudgetExhausted, TokenBudget

log = logging.getLogger(__name__)

#: So many responses that follow no protocol, and no answer, are a fault of the settings and not of single requests.
_UNEXPECTED_AT_FIRST = 8

# What a template puts around each message, and around all of them, in tokens; generously.
_TOKENS_AROUND_MESSAGE = 8
TOKENS_AROUND_REQUEST = 32


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request.

    Attributes:
        body: JSON body.
        max_usage: upper bound of its tokens: no token is shorter than a byte.
        digest: digest of everything that an answer depends on.
    """

    body: dict[str, Any]
    max_usage: TokenUsage
    digest: str


class JournaledChat:
    """Chat endpoint that takes answers from the journal where it has them.

    Args:
        spec: the endpoint.
        name: name in messages.
        secret: the folder of the Secret that opens it.
        temperature, max_tokens: sampling temperature and maximum tokens of its answers.
        journal: earlier answers.
        sleep: waits for a number of seconds.
        longest_wait: longest wait that the endpoint may ask for.
        budget: limits on spending; None: no limits.

    Attributes:
        refusals: responses to rejected requests, and what is wrong with those that are no answer, by digest.
        beyond_budget: digests of requests that were not sent since the budget does not cover them.
    """

    def __init__(
        self,
        spec: ChatEndpoint,
        name: str,
        secret: Path,
        temperature: float,
        max_tokens: int,
        journal: Journal,
        sleep: Callable[[float], None] = time.sleep,
        *,
        longest_wait: float = LONGEST_WAIT_SECONDS,
        budget: TokenBudget | None = None,
    ) -> None:
        self.spec = spec
        self.journal = journal
        self.name = name
        self.max_tokens = max_tokens
        self.endpoint = Endpoint(
            completions_url(spec.url), name, secret, TIMEOUT_SECONDS, sleep, longest_wait=longest_wait
        )
        self.refusals: dict[str, str] = {}
        self.beyond_budget: set[str] = set()
        self._budget = budget
        self._unexpected = 0
        self._temperature = temperature

    def build_request(
        self, messages: Sequence[Row], tools: list[Any] | None = None, sample: int | None = None
    ) -> ChatRequest:
        """Request for one answer.

        Args:
            messages: the conversation so far.
            tools: tools that the answer may call.
            sample: number that distinguishes several answers to one conversation; None for a single answer.
        """
        body = chat_body(self.spec, messages, self._temperature, self.max_tokens, tools)
        prompt = len(canonical_json(body)) + _TOKENS_AROUND_MESSAGE * len(messages) + TOKENS_AROUND_REQUEST
        identity = {"url": self.spec.url, **({} if sample is None else {"sample": sample}), **body}
        return ChatRequest(body, TokenUsage(prompt, self.max_tokens), sha256_digest(canonical_json(identity)))

    def unanswered(self, requests: Iterable[ChatRequest]) -> list[ChatRequest]:
        """Requests without an answer, each once."""
        wanted = {request.digest: request for request in requests}
        return [request for request in wanted.values() if self.answer_to(request) is None]

    def ask_all(
        self, requests: Iterable[ChatRequest], concurrency: int, on_answer: Callable[[], None]
    ) -> None:
        """Send all requests without an answer; rejected ones stay without.

        Args:
            on_answer: called in this thread after each.

        Raises:
            UserError: the endpoint wants another key, URL or protocol.
            InfrastructureError: it was busy or away at every try.
        """
        calls = (partial(self.ask, request) for request in self.unanswered(requests))
        call_all(calls, concurrency, on_answer)

    def answer_to(self, request: ChatRequest) -> ChatAnswer | None:
        """Answer in the journal; None if there is none."""
        return self.journal.get(request.digest)

    def close(self) -> None:
        """Close its connections."""
        self.endpoint.close()

    def ask(self, request: ChatRequest) -> None:
        """Send a request, with retries, and record its answer; without budget it stays without one.

        So does one whose response follows no protocol: something in front of the endpoint may have answered it.

        Raises:
            UserError: the endpoint wants another key, URL or protocol.
            InfrastructureError: it was busy or away at every try.
        """
        try:
            self.endpoint.retry_while_busy(lambda: self.ask_once(request))
        except BudgetExhausted:
            log.warning("the budget of %s does not cover another request", self.name)
            self.beyond_budget.add(request.digest)
        except RequestRefused as error:
            log.warning("%s refuses a request: %s", self.name, error.message)
            self.refusals[request.digest] = error.message
        except UnexpectedResponse as error:
            self._unexpected += 1
            if not self.journal.answers and self._unexpected >= _UNEXPECTED_AT_FIRST:
                raise
            log.warning("%s", error.message)
            self.refusals[request.digest] = error.message

    def ask_once(self, request: ChatRequest) -> None:
        """Send a request once, and record its answer.

        Raises:
            RequestRefused: the endpoint refuses this request.
            EndpointBusy: it is busy or away.
            BudgetExhausted: the budget does not cover the request.
        """
        if self._budget is None:
            self.journal.put(request.digest, self.fetch_answer(request))
            return
        with self._budget.reserve(request.digest, request.max_usage) as record_answer:
            record_answer(self.fetch_answer(request))

    def fetch_answer(self, request: ChatRequest) -> ChatAnswer:
        """Answer of the endpoint; if it reports no usage, with the request's maximum usage."""
        return read_answer(self.endpoint.post_once(request.body), self.name, request.max_usage)
