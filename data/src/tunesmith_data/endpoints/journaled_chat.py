"""Chat endpoint that is asked each question once: its answers are kept in a journal."""

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
from .client import LONGEST_WAIT_SECONDS, Endpoint, RequestRefused
from .journal import Answer, Journal, Usage
from .parallel_calls import call_all

log = logging.getLogger(__name__)

# What a template puts around each message, and around all of them, in tokens; generously.
_AROUND_A_MESSAGE = 8
AROUND_ALL = 32


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


class JournaledChat:
    """Answers questions; those that the journal knows are not asked again.

    Args:
        spec: who is asked.
        what: what messages call it.
        secret: the folder of the Secret that opens it.
        temperature, max_tokens: of its answers.
        journal: what was answered.
        sleep: waits so many seconds.
        longest_wait: how long the endpoint may ask to be left alone.

    Attributes:
        refusals: what the endpoint said of questions that it refused, by their digests.
    """

    def __init__(
        self,
        spec: ChatEndpoint,
        what: str,
        secret: Path,
        temperature: float,
        max_tokens: int,
        journal: Journal,
        sleep: Callable[[float], None] = time.sleep,
        *,
        longest_wait: float = LONGEST_WAIT_SECONDS,
    ) -> None:
        self.spec = spec
        self.journal = journal
        self.what = what
        self.max_tokens = max_tokens
        self.endpoint = Endpoint(
            completions_url(spec.url), what, secret, TIMEOUT_SECONDS, sleep, longest_wait=longest_wait
        )
        self.refusals: dict[str, str] = {}
        self._temperature = temperature

    def question(
        self, messages: Sequence[Row], tools: list[Any] | None = None, sample: int | None = None
    ) -> Question:
        """A question to it.

        Args:
            messages: the conversation so far.
            tools: what the answer may call.
            sample: tells apart several answers to one conversation; None where there is one answer to each.
        """
        body = chat_body(self.spec, messages, self._temperature, self.max_tokens, tools)
        prompt = len(canonical_json(body)) + _AROUND_A_MESSAGE * len(messages) + AROUND_ALL
        identity = {"url": self.spec.url, **({} if sample is None else {"sample": sample}), **body}
        return Question(body, Usage(prompt, self.max_tokens), sha256_digest(canonical_json(identity)))

    def unanswered(self, questions: Iterable[Question]) -> list[Question]:
        """The questions that have no answer yet, each once."""
        wanted = {question.digest: question for question in questions}
        return [question for question in wanted.values() if self.answer_to(question) is None]

    def ask_all(self, questions: Iterable[Question], concurrency: int, ended: Callable[[], None]) -> None:
        """Ask what has not been answered; a question that is refused stays without an answer.

        Args:
            ended: called in this thread after each.

        Raises:
            UserError: the endpoint wants another key, URL or protocol.
            InfrastructureError: it was busy or away at every try.
        """
        calls = (partial(self.ask, question) for question in self.unanswered(questions))
        call_all(calls, concurrency, ended)

    def answer_to(self, question: Question) -> Answer | None:
        """What it has said; None if nothing."""
        return self.journal.get(question.digest)

    def close(self) -> None:
        """Close its connections."""
        self.endpoint.close()

    def ask(self, question: Question) -> None:
        """Ask a question, again and again where that may help, and write its answer down."""
        try:
            self.endpoint.persist(lambda: self.ask_once(question))
        except RequestRefused as error:
            log.warning("%s refuses a request: %s", self.what, error.message)
            self.refusals[question.digest] = error.message

    def ask_once(self, question: Question) -> None:
        """Ask a question once, and write its answer down.

        Raises:
            RequestRefused: the endpoint refuses this question.
            TryAgain: it is busy or away.
        """
        self.journal.put(question.digest, self.fetch_answer(question))

    def fetch_answer(self, question: Question) -> Answer:
        """The endpoint's answer; where it doesn't count tokens, the most that the question may take."""
        return read_answer(self.endpoint.post_once(question.body), self.what, question.most)
