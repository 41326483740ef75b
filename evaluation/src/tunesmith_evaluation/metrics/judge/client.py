"""Judge's endpoint: questions in parallel, each paid for once, with tokens and price counted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tunesmith_contract.evaluation import PricedEndpoint, TokenPrices
from tunesmith_data.endpoints.journal import Journal
from tunesmith_data.endpoints.journaled_chat import JournaledChat
from tunesmith_data.endpoints.token_budget import TokenBudget
from tunesmith_data.failures import UserError
from tunesmith_evaluation.metrics.thinking import split_thinking

#: Requests on their way at the same time.
CONCURRENCY = 8
_MILLION = 1_000_000

#: Reads a verdict; None if the text has none.
ReadVerdict = Callable[[str], Any]


class _BeyondBudget:
    """Mark of a question that was not asked since the budget does not cover it."""


#: Verdict on a question that was not asked.
BEYOND_BUDGET = _BeyondBudget()


class Judge(Protocol):
    """Model that answers questions about answers.

    Attributes:
        name: name of the model, for the version of scores.
    """

    name: str

    def ask_all(self, questions: Sequence[str], read: ReadVerdict) -> list[Any]:
        """Verdicts in the order of the questions; None where there is none, BEYOND_BUDGET where it was not asked."""

    def usage(self) -> dict[str, Any]:
        """Calls, tokens, price and number of questions that were not asked so far, as JSON members."""


class EndpointJudge:
    """Judge behind an endpoint of the OpenAI API, at temperature 0.

    A question whose answer has no verdict is asked once more.

    Args:
        spec: the endpoint.
        secret: folder of the Secret that opens it.
        max_tokens: largest length of an answer.
        journal: earlier answers.
    """

    def __init__(self, spec: PricedEndpoint, secret: Path, max_tokens: int, journal: Journal) -> None:
        self.name = spec.model
        self._prices = spec.prices
        self._journal = journal
        limits = spec.call_budget
        budget = None if limits is None else TokenBudget(limits, journal)
        self._unasked = 0
        self._chat = JournaledChat(spec, "the judge", secret, 0.0, max_tokens, journal, budget=budget)

    def ask_all(self, questions: Sequence[str], read: ReadVerdict) -> list[Any]:
        """Verdicts in the order of the questions.

        None where the judge refuses, or gives none twice; BEYOND_BUDGET where the budget does not cover the question.

        Raises:
            UserError: the endpoint wants another key, URL or protocol, or refuses every question.
            InfrastructureError: it was busy or away at every try.
        """
        verdicts: list[Any] = [None] * len(questions)
        for sample in (None, 1):
            open_questions = [index for index, verdict in enumerate(verdicts) if verdict is None]
            requests = {
                index: self._chat.build_request(
                    [{"role": "user", "content": questions[index]}], sample=sample
                )
                for index in open_questions
            }
            self._chat.ask_all(requests.values(), CONCURRENCY, lambda: None)
            self._check_refusals([request.digest for request in requests.values()])
            for index, request in requests.items():
                answer = self._chat.answer_to(request)
                if sample is None and request.digest in self._chat.beyond_budget:
                    verdicts[index] = BEYOND_BUDGET
                    self._unasked += 1
                elif answer is not None:
                    split = split_thinking(answer.text)
                    verdicts[index] = read(split.text) if split.complete else None
        return verdicts

    def _check_refusals(self, digests: Sequence[str]) -> None:
        """Check that not every question is refused: that is a fault of the settings.

        Raises:
            UserError: all are.
        """
        refusals = self._chat.refusals
        if digests and not self._journal.answers and all(digest in refusals for digest in digests):
            message = (
                f"the judge at {self._chat.spec.url} refuses every question ({refusals[digests[0]]}): check the name "
                "of the model, and whether it takes temperature and max_tokens"
            )
            raise UserError("EndpointRefused", message)

    def usage(self) -> dict[str, Any]:
        """Calls, tokens and price so far, those of earlier attempts included."""
        spent = self._journal.spent
        counts = {
            "calls": spent.calls,
            "promptTokens": spent.prompt_tokens,
            "completionTokens": spent.completion_tokens,
            **({"unasked": self._unasked} if self._unasked else {}),
        }
        return counts | _price(self._prices, spent.prompt_tokens, spent.completion_tokens)

    def close(self) -> None:
        """Close its connections."""
        self._chat.close()


@contextmanager
def open_judge(
    spec: PricedEndpoint, secret: Path, max_tokens: int, journal: Path, upload: Callable[[Path], None]
) -> Iterator[EndpointJudge]:
    """Judge with its journal.

    Args:
        spec: the endpoint.
        secret: folder of the Secret that opens it.
        max_tokens: largest length of an answer.
        journal: file of the journal.
        upload: copies the journal to lasting storage.
    """
    with Journal(journal, upload) as opened:
        judge = EndpointJudge(spec, secret, max_tokens, opened)
        try:
            yield judge
        finally:
            judge.close()


def _price(prices: TokenPrices | None, prompt_tokens: int, completion_tokens: int) -> dict[str, str]:
    if prices is None:
        return {}
    amount = (prices.prompt * prompt_tokens + prices.completion * completion_tokens) / _MILLION
    return {"amount": f"{amount:f}", "currency": prices.currency}
