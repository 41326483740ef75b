"""An endpoint that answers questions, each of them once, at its pace and within the budget."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.methods import ChatEndpoint
from tunesmith_data.endpoints.chat import TIMEOUT_SECONDS, chat_body, completions_url, read_answer
from tunesmith_data.endpoints.client import Endpoint, RequestRefused, TryAgain
from tunesmith_data.endpoints.journal import Answer, Journal, Spent, Usage
from tunesmith_data.endpoints.parallel_calls import call_all
from tunesmith_data.rows.schema.formats import Row

from .rate_limiter import Clock, Pace
from .token_budget import BudgetExhausted, Purse

log = logging.getLogger(__name__)

#: How long an endpoint may ask to be left alone: no GPU waits meanwhile.
LONGEST_WAIT_SECONDS = 3600.0

# What a template puts around each message, and around all of them, in tokens; generously.
_AROUND_A_MESSAGE = 8
_AROUND_ALL = 32


@dataclass(frozen=True, slots=True)
class Question:
    """A request.

    Attributes:
        body: what is sent.
        most: what it takes at most: no token is shorter than a byte.
        digest: of all that an answer depends on.
    """

    body: dict[str, Any]
    most: Usage
    digest: str


class Respondent:
    """Answers questions; those that the journal knows are not asked again.

    Args:
        endpoint: who is asked.
        what: what messages call it.
        secret: the folder of the Secret that opens it.
        temperature, max_tokens: of its answers.
        journal, purse: what was answered, and what may be spent.
        pace: how fast it is asked.
        clock: waits.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        what: str,
        secret: Path,
        temperature: float,
        max_tokens: int,
        journal: Journal,
        purse: Purse,
        pace: Pace,
        clock: Clock,
    ) -> None:
        self.spec = endpoint
        self._what = what
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._journal = journal
        self._purse = purse
        self._pace = pace
        self._endpoint = Endpoint(
            completions_url(endpoint.url),
            what,
            secret,
            TIMEOUT_SECONDS,
            clock.sleep,
            longest_wait=LONGEST_WAIT_SECONDS,
        )
        self.refusals: list[str] = []

    def question(self, messages: Sequence[Row], tools: list[Any] | None = None, sample: int = 0) -> Question:
        """A question to it.

        Args:
            messages: the conversation so far.
            tools: what the answer may call.
            sample: tells apart several answers to one conversation.
        """
        body = chat_body(self.spec, messages, self._temperature, self._max_tokens, tools)
        prompt = len(canonical_json(body)) + _AROUND_A_MESSAGE * len(messages) + _AROUND_ALL
        identity = {"url": self.spec.url, "sample": sample, **body}
        digest = sha256_digest(canonical_json(identity))
        return Question(body, Usage(prompt, self._max_tokens), digest)

    def cost(self, questions: Iterable[Question]) -> Spent:
        """What the questions take at most; those that were answered take nothing."""
        spent = Spent()
        for question in questions:
            if self._journal.get(question.digest) is None:
                spent = spent.plus(question.most)
        return spent

    def most(self, heard: int, calls: int) -> Spent:
        """What so many questions about so many bytes take at most, roughly."""
        return Spent().plus(Usage(heard + _AROUND_ALL, self._max_tokens), calls)

    def ask_all(self, questions: Iterable[Question], concurrency: int, ended: Callable[[], None]) -> None:
        """Ask what has not been answered; a question that is refused, or can't be paid for, stays without an answer.

        Args:
            ended: called in this thread after each.

        Raises:
            UserError: the endpoint wants another key, URL or protocol.
            InfrastructureError: it was busy or away at every try.
        """
        wanted = {question.digest: question for question in questions}
        unanswered = [each for each in wanted.values() if self.answer_to(each) is None]
        call_all((partial(self._ask, question) for question in unanswered), concurrency, ended)

    def answer_to(self, question: Question) -> Answer | None:
        """What it has said; None if nothing."""
        return self._journal.get(question.digest)

    def close(self) -> None:
        """Close its connections."""
        self._endpoint.close()

    def _ask(self, question: Question) -> None:
        try:
            self._endpoint.persist(lambda: self._ask_once(question))
        except RequestRefused as error:
            log.warning("%s refuses a request: %s", self._what, error.message)
            self.refusals.append(error.message)
        except BudgetExhausted:
            log.warning("the budget does not pay for another request")

    def _ask_once(self, question: Question) -> None:
        self._pace.wait()
        with self._purse.turn(question.digest, question.most) as settle:
            settle(self._answer(question))

    def _answer(self, question: Question) -> Answer:
        try:
            response = self._endpoint.post_once(question.body)
        except TryAgain as error:
            self._pace.hold(error.retry_after or 0.0)
            raise
        return read_answer(response, self._what, question.most)
