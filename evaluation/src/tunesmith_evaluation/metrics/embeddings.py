"""Scorer of the similarity of two texts by their embeddings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tunesmith_contract.methods import ChatEndpoint
from tunesmith_data.endpoints.client import Endpoint, RequestRefused
from tunesmith_data.failures import UserError

from .answers import Answer, Expected, Question
from .scorer import Score, ScoredItem, TextScorer

_BATCH = 64
_TIMEOUT_SECONDS = 120.0

Vectors = np.ndarray[Any, np.dtype[np.float64]]


class Embedder(Protocol):
    """Encoder of texts: an endpoint, or a model in this process.

    Attributes:
        name: name and revision of the model, for the version of scores.
    """

    name: str

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, a row for each."""


class EndpointEmbedder:
    """Embedder behind an endpoint of the OpenAI API.

    Args:
        spec: the endpoint.
        secret: folder of the Secret that opens it.
    """

    def __init__(self, spec: ChatEndpoint, secret: Path) -> None:
        self.name = spec.model
        self._model = spec.model
        base = spec.url.rstrip("/")
        url = base if base.endswith("/embeddings") else f"{base}/embeddings"
        self._endpoint = Endpoint(url, "the embedding endpoint", secret, _TIMEOUT_SECONDS)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, a row for each.

        Raises:
            UserError: the endpoint refuses a request, or does not follow OpenAI's protocol.
            InfrastructureError: it was busy or away at every try.
        """
        rows: list[Sequence[float]] = []
        for begin in range(0, len(texts), _BATCH):
            rows += self._embed_batch(texts[begin : begin + _BATCH])
        try:
            return np.array(rows, dtype=np.float64).reshape(len(texts), -1)
        except ValueError as error:
            raise _wrong_answer("vectors of one length") from error

    def close(self) -> None:
        """Close its connections."""
        self._endpoint.close()

    def _embed_batch(self, texts: Sequence[str]) -> list[Sequence[float]]:
        try:
            response = self._endpoint.post({"model": self._model, "input": list(texts)})
            data = sorted(response["data"], key=lambda entry: entry["index"])
            vectors = [entry["embedding"] for entry in data]
        except RequestRefused as error:
            message = (
                f"the embedding endpoint refuses a request: {error.message}: name a model that it serves"
            )
            raise UserError("EmbeddingRefused", message) from error
        except (KeyError, TypeError) as error:
            raise _wrong_answer('{"data": [{"index", "embedding"}]}') from error
        if len(vectors) != len(texts):
            raise _wrong_answer("a vector for each text")
        return vectors


class EmbeddingSimilarity(TextScorer):
    """Cosine of the vectors of answer and expected answer; negative ones count as 0.

    It measures likeness of topic more than truth: "aisle 4" and "aisle 5" are nearly the same.

    Args:
        embedder: encodes texts.
    """

    name = "EmbeddingSimilarity"

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[str, Vectors] = {}
        self.version = f"1 {embedder.name}"

    def score_all(self, items: Sequence[ScoredItem]) -> list[Score]:
        """Scores of all items; their texts are encoded together, each once."""
        texts = [item.expected.text for item in items]
        texts += [answer.text for item in items for answer in item.answers if _has_text(answer)]
        self._encode(texts)
        return super().score_all(items)

    def _score(self, question: Question, expected: Expected, answer: Answer) -> Score:
        return (
            super()._score(question, expected, answer) if _has_text(answer) else Score(0.0, {"empty": True})
        )

    def score_text(self, expected: Expected, text: str) -> Score:
        """Cosine of the angle between the vectors."""
        self._encode([expected.text, text])
        one, other = self._known[expected.text], self._known[text]
        length = float(np.linalg.norm(one) * np.linalg.norm(other))
        cosine = float(one @ other) / length if length and np.isfinite(length) else 0.0
        return Score(1.0 if text == expected.text else min(1.0, max(0.0, cosine)))

    def _encode(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self._embedder.embed(new), strict=True))


def _has_text(answer: Answer) -> bool:
    return answer.complete and bool(answer.text.strip()) and not answer.calls_tools


def _wrong_answer(wanted: str) -> UserError:
    return UserError(
        "EmbeddingAnswer", f"the embedding endpoint gives no {wanted}: use one with the OpenAI API"
    )
