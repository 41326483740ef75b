"""Chat endpoint with a journal, a rate limit and a token budget."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tunesmith_contract.methods import ChatEndpoint
from tunesmith_data.endpoints.client import EndpointBusy
from tunesmith_data.endpoints.journal import ChatAnswer, Journal, Spending, TokenUsage
from tunesmith_data.endpoints.journaled_chat import TOKENS_AROUND_REQUEST, ChatRequest, JournaledChat
from tunesmith_data.endpoints.token_budget import TokenBudget
from tunesmith_data.rows.schema.formats import Row

from .rate_limiter import Clock, RateLimiter

#: Longest wait that an endpoint may ask for: no GPU waits meanwhile.
LONGEST_WAIT_SECONDS = 3600.0


class BudgetedChat(JournaledChat):
    """Chat endpoint whose requests wait for the rate limiter and are charged to the budget.

    Args:
        endpoint: the endpoint.
        name: name in messages.
        secret: the folder of the Secret that opens it.
        temperature, max_tokens: sampling temperature and maximum tokens of its answers.
        journal, budget: earlier answers, and the limits on spending.
        rate_limiter: limits requests per minute.
        clock: sleep function.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        name: str,
        secret: Path,
        temperature: float,
        max_tokens: int,
        journal: Journal,
        budget: TokenBudget,
        rate_limiter: RateLimiter,
        clock: Clock,
    ) -> None:
        super().__init__(
            endpoint,
            name,
            secret,
            temperature,
            max_tokens,
            journal,
            clock.sleep,
            longest_wait=LONGEST_WAIT_SECONDS,
            budget=budget,
        )
        self._rate_limiter = rate_limiter

    def build_request(
        self, messages: Sequence[Row], tools: list[Any] | None = None, sample: int | None = 0
    ) -> ChatRequest:
        """Request for one answer; a conversation may have several numbered samples."""
        return super().build_request(messages, tools, sample)

    def max_spending(self, requests: Iterable[ChatRequest]) -> Spending:
        """Maximum spending of requests; those with an answer cost nothing."""
        spent = Spending()
        for request in requests:
            if self.answer_to(request) is None:
                spent = spent.add_calls(request.max_usage)
        return spent

    def estimate_spending(self, context_bytes: int, calls: int) -> Spending:
        """Approximate maximum spending of requests of a given size."""
        return Spending().add_calls(TokenUsage(context_bytes + TOKENS_AROUND_REQUEST, self.max_tokens), calls)

    def ask_once(self, request: ChatRequest) -> None:
        """Wait for the rate limiter, reserve budget, send, and record the answer with its usage."""
        self._rate_limiter.wait()
        super().ask_once(request)

    def fetch_answer(self, request: ChatRequest) -> ChatAnswer:
        """Answer of the endpoint; if it asks to wait, all threads wait."""
        try:
            return super().fetch_answer(request)
        except EndpointBusy as error:
            self._rate_limiter.pause(error.retry_after or 0.0)
            raise
