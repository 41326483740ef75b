"""Interface of the sources of answers: models in this process, a vLLM engine, an endpoint, stored answers."""

from collections.abc import Generator, Sequence
from typing import Protocol

from tunesmith_evaluation.items.requests import Reply, Request
from tunesmith_evaluation.metrics.answers import JSONValue

#: Replies in batches; it is closed when no more are wanted.
Replies = Generator[Sequence[Reply]]


class Answerer(Protocol):
    """One source of answers for one side or several.

    Attributes:
        sides: names of the sides that it answers for.
    """

    @property
    def sides(self) -> tuple[str, ...]: ...

    def revision(self, side: str) -> str:
        """Digest of the artifact or revision of the model; empty where it can't be known, as of an endpoint."""

    def identity(self, side: str) -> JSONValue:
        """Everything that the side's answers depend on beside the request, as JSON.

        Weights by digest, chat template, engine and data type; of an endpoint its URL and the name of its model. It is
        known without loading weights. Answers of an earlier attempt are used again only if it is the same.
        """

    def answer(self, requests: Sequence[Request]) -> Replies:
        """Answer requests of all its sides and suites; yields one reply for each, in batches and in any order.

        It is called once for a run, and only with requests that no earlier attempt has answered. Weights are loaded
        when the iteration begins, and freed when it ends or is closed: no two answerers hold a model at a time.
        What fails one request alone is a reply with a ``problem``.

        Raises:
            StageError: nothing can be answered: memory does not suffice, the endpoint refuses the key.
        """
