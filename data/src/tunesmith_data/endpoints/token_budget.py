"""Token and call budget; reserves before sending, so that concurrent requests cannot overspend."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial

from tunesmith_contract.generation import CallBudget
from tunesmith_data.endpoints.client import EndpointBusy, RequestRefused
from tunesmith_data.endpoints.journal import ChatAnswer, Journal, Spending, TokenUsage

_MILLION = 1_000_000


class BudgetExhausted(Exception):
    """The remaining budget does not cover the request."""


class TokenBudget:
    """Budget and the spending that the journal records. Threads may share it.

    A rejected request costs nothing. One whose answer was lost counts with its maximum usage.
    """

    def __init__(self, budget: CallBudget, journal: Journal) -> None:
        self._budget = budget
        self._journal = journal
        self._changed = threading.Condition()
        self._in_flight = 0
        #: True once the budget did not cover a request.
        self.exhausted = False

    @property
    def spent(self) -> Spending:
        """Spending so far, including requests in flight."""
        return self._journal.spent

    @property
    def amount(self) -> Decimal | None:
        """Cost of the spending; None without prices."""
        return self._price(self.spent) if self._budget.currency else None

    def allows(self, more: Spending) -> bool:
        """True if the rest of the budget covers this spending."""
        budget, total = self._budget, self.spent.plus(more)
        if budget.calls is not None and total.calls > budget.calls:
            return False
        if budget.tokens is not None and total.prompt_tokens + total.completion_tokens > budget.tokens:
            return False
        return budget.amount is None or self._price(total) <= budget.amount

    @contextmanager
    def reserve(self, question: str, max_usage: TokenUsage) -> Iterator[Callable[[ChatAnswer], None]]:
        """Reserve ``max_usage`` for one request; yields the function that records its answer.

        Waits while reservations of other requests may still be returned.

        Raises:
            BudgetExhausted: the budget does not cover it.
        """
        self._reserve(question, max_usage)
        try:
            yield partial(self._journal.put, question)
        except RequestRefused:
            self._journal.release(question)
            raise
        except EndpointBusy as error:
            if error.not_processed:
                self._journal.release(question)
            raise
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def _reserve(self, question: str, max_usage: TokenUsage) -> None:
        with self._changed:
            while not self.allows(Spending().add_calls(max_usage)):
                if not self._in_flight:
                    self.exhausted = True
                    raise BudgetExhausted
                self._changed.wait()
            self._journal.reserve(question, max_usage)
            self._in_flight += 1

    def _price(self, spent: Spending) -> Decimal:
        ingoing = (self._budget.input_price_per_million or 0) * spent.prompt_tokens
        outgoing = (self._budget.output_price_per_million or 0) * spent.completion_tokens
        return Decimal(ingoing + outgoing) / _MILLION
