"""What may be spent: a request is reserved before it is sent, so no limit is passed, however many are on their way."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial

from tunesmith_contract.generation import GenerationBudget
from tunesmith_data.endpoints.client import RequestRefused, TryAgain
from tunesmith_data.endpoints.journal import Answer, Journal, Spent, Usage

_MILLION = 1_000_000


class BudgetExhausted(Exception):
    """What is left does not pay for the request."""


class Purse:
    """A budget, and what the journal says was spent of it. Threads may share it.

    A request that is turned away costs nothing. One whose answer was lost counts with all that it may have taken.
    """

    def __init__(self, budget: GenerationBudget, journal: Journal) -> None:
        self._budget = budget
        self._journal = journal
        self._changed = threading.Condition()
        self._on_their_way = 0
        #: Whether a request could not be paid for.
        self.exhausted = False

    @property
    def spent(self) -> Spent:
        """What was spent, or may have been."""
        return self._journal.spent

    @property
    def amount(self) -> Decimal | None:
        """What that costs; None without prices."""
        return self._price(self.spent) if self._budget.currency else None

    def affords(self, more: Spent) -> bool:
        """Whether so much more is within the budget."""
        budget, total = self._budget, self.spent.together(more)
        if total.calls > budget.calls:
            return False
        if budget.tokens is not None and total.prompt_tokens + total.completion_tokens > budget.tokens:
            return False
        return budget.amount is None or self._price(total) <= budget.amount

    @contextmanager
    def turn(self, question: str, most: Usage) -> Iterator[Callable[[Answer], None]]:
        """Pay for one request that takes ``most`` at most; what is given is told its answer.

        Waits while what others have reserved, and may not need, is in the way.

        Raises:
            BudgetExhausted: it can't be paid for.
        """
        self._reserve(question, most)
        try:
            yield partial(self._journal.put, question)
        except RequestRefused:
            self._journal.release(question)
            raise
        except TryAgain as error:
            if error.unserved:
                self._journal.release(question)
            raise
        finally:
            with self._changed:
                self._on_their_way -= 1
                self._changed.notify_all()

    def _reserve(self, question: str, most: Usage) -> None:
        with self._changed:
            while not self.affords(Spent().plus(most)):
                if not self._on_their_way:
                    self.exhausted = True
                    raise BudgetExhausted
                self._changed.wait()
            self._journal.reserve(question, most)
            self._on_their_way += 1

    def _price(self, spent: Spent) -> Decimal:
        ingoing = (self._budget.input_price_per_million or 0) * spent.prompt_tokens
        outgoing = (self._budget.output_price_per_million or 0) * spent.completion_tokens
        return Decimal(ingoing + outgoing) / _MILLION
