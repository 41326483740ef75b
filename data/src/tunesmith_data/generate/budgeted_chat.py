"""Chat endpoint that answers each question once, at its pace and within the budget."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tunesmith_contract.methods import ChatEndpoint
from tunesmith_data.endpoints.client import TryAgain
from tunesmith_data.endpoints.journal import Answer, Journal, Spent, Usage
from tunesmith_data.endpoints.journaled_chat import AROUND_ALL, JournaledChat, Question
from tunesmith_data.rows.schema.formats import Row

from .rate_limiter import Clock, Pace
from .token_budget import BudgetExhausted, Purse

log = logging.getLogger(__name__)

#: How long an endpoint may ask to be left alone: no GPU waits meanwhile.
LONGEST_WAIT_SECONDS = 3600.0


class BudgetedChat(JournaledChat):
    """A chat endpoint whose requests wait for their turn, and are paid for.

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
        super().__init__(
            endpoint,
            what,
            secret,
            temperature,
            max_tokens,
            journal,
            clock.sleep,
            longest_wait=LONGEST_WAIT_SECONDS,
        )
        self._purse = purse
        self._pace = pace

    def question(
        self, messages: Sequence[Row], tools: list[Any] | None = None, sample: int | None = 0
    ) -> Question:
        """A question to it; a conversation may be answered several times, in numbered samples."""
        return super().question(messages, tools, sample)

    def cost(self, questions: Iterable[Question]) -> Spent:
        """What the questions take at most; those that were answered take nothing."""
        spent = Spent()
        for question in questions:
            if self.answer_to(question) is None:
                spent = spent.plus(question.most)
        return spent

    def most(self, heard: int, calls: int) -> Spent:
        """What so many questions about so many bytes take at most, roughly."""
        return Spent().plus(Usage(heard + AROUND_ALL, self.max_tokens), calls)

    def ask(self, question: Question) -> None:
        """Ask a question; one that can't be paid for stays without an answer."""
        try:
            super().ask(question)
        except BudgetExhausted:
            log.warning("the budget does not pay for another request")

    def ask_once(self, question: Question) -> None:
        """Wait for the turn, reserve the budget, ask, and write the answer down with what it took."""
        self._pace.wait()
        with self._purse.turn(question.digest, question.most) as settle:
            settle(self.fetch_answer(question))

    def fetch_answer(self, question: Question) -> Answer:
        """The endpoint's answer; one that asks to be left alone is left alone by all threads."""
        try:
            return super().fetch_answer(question)
        except TryAgain as error:
            self._pace.hold(error.retry_after or 0.0)
            raise
