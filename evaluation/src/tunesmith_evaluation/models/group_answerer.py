"""Common part of the answerers of one model's sides, by transformers and by vLLM."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.evaluation import Engine
from tunesmith_data.models.inspection import load_config
from tunesmith_evaluation.items.requests import Reply, Request
from tunesmith_evaluation.metrics.answers import JSONValue

from .encoding import EncodedRequest, RequestEncoder
from .sides import ModelGroup, padded_tokenizer


class GroupAnswerer(ABC):
    """Answerer of the sides of one model.

    Args:
        group: the model and its adapters.
        gpus: number of GPUs that compute the answers; 0: CPUs.
    """

    engine: ClassVar[Engine]

    def __init__(self, group: ModelGroup, gpus: int) -> None:
        self._group, self._gpus = group, gpus

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the sides."""
        return self._group.sides

    @cached_property
    def _tokenizer(self) -> Any:
        return padded_tokenizer(self._group)

    def revision(self, side: str) -> str:
        """Digest of the artifact, or revision of the model."""
        return self._group.side_revision(side)

    def identity(self, side: str) -> JSONValue:
        """Engine, weights, chat template, and the data type that follows from the device."""
        template = self._tokenizer.chat_template
        return {
            "engine": str(self.engine),
            "model": self._group.revision,
            "artifact": self._group.digests.get(side),
            "template": sha256_digest(canonical_json(template)) if template else None,
            "dtype": "bfloat16" if self._gpus else "float32",
        }

    def answer(self, requests: Sequence[Request]) -> Generator[Sequence[Reply]]:
        """Answer requests; those that can't be encoded first.

        Raises:
            StageError: the model can't be loaded or served, or memory does not suffice for one request.
        """
        config = load_config(self._group.folder, self._group.name)
        encoder = RequestEncoder(self._tokenizer, getattr(config, "max_position_embeddings", None) or 0)
        encoded = [encoder.encode(request) for request in requests]
        refused = [reply for reply in encoded if isinstance(reply, Reply)]
        if refused:
            yield refused
        ready = [request for request in encoded if isinstance(request, EncodedRequest)]
        if ready:
            yield from self._answer_encoded(ready)

    @abstractmethod
    def _answer_encoded(self, encoded: Sequence[EncodedRequest]) -> Iterator[Sequence[Reply]]:
        """Replies to at least one request, in batches and in any order."""
