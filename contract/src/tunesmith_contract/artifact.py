"""Manifest of an artifact; the digest of its bytes, which hold every file's digest, is the artifact's digest."""

import math
from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from .answer_formats import ChatFormat
from .base import Digest, Document, canonical_json, sha256_digest


class File(Document):
    """One file of an artifact, relative to its folder."""

    path: str
    size_bytes: int
    sha256: Digest


class Probe(Document):
    """Prompt whose log-probabilities distinguish the tuned model from its base model.

    Attributes:
        token_ids: prompt and continuation as token ids.
        prompt_length: number of tokens that are the prompt.
        base_log_prob: mean log-probability of the continuation's tokens under the base model, nats per token.
        tuned_log_prob: the same with the adapter.
        base_token_log_probs: log-probability of each token of the continuation under the base model, in nats; None in
            manifests of earlier releases.
        tuned_token_log_probs: the same with the adapter.
    """

    token_ids: tuple[int, ...]
    prompt_length: int = Field(ge=1)
    base_log_prob: float
    tuned_log_prob: float
    base_token_log_probs: tuple[float, ...] | None = None
    tuned_token_log_probs: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        for values in (self.base_token_log_probs, self.tuned_token_log_probs):
            if values is not None and len(values) != self.token_count:
                raise ValueError(f"{len(values)} log-probabilities for {self.token_count} tokens")
        if self.token_count < 1:
            raise ValueError("a probe needs a token after its prompt")
        return self

    @property
    def token_count(self) -> int:
        """Number of tokens of the continuation."""
        return len(self.token_ids) - self.prompt_length


class ProbeNoise(Document):
    """Noise of the probes' log-probabilities: root mean squares of differences per token, in nats.

    Attributes:
        batching: each probe alone against all of them in padded batches.
        attention: the attention kernel of the measurement against the plain one.
        precision: logits in bfloat16 against logits in float32.
    """

    batching: float = Field(ge=0)
    attention: float = Field(ge=0)
    precision: float = Field(ge=0)

    @property
    def per_token(self) -> float:
        """Noise of all sources together, in nats per token: they are independent."""
        return math.hypot(self.batching, self.attention, self.precision)


class Lineage(Document):
    """Lineage of an artifact: everything needed to make it again.

    ``generation`` is the digest of the ``generation.json`` that says how rows of its data were made by a teacher.
    """

    namespace: str
    job: str
    uid: str
    base_model: str
    base_model_revision: str
    dataset_digest: Digest
    image: str
    parameters: dict[str, object]
    code_digest: Digest | None = None
    seed: int | None = None
    initial: Digest | None = None
    generation: Digest | None = None
    versions: dict[str, str]


class ArtifactKind(StrEnum):
    """Kind of an artifact.

    ``LoRA``, ``RSLoRA`` and ``DoRA`` are PEFT adapters of causal models, ``RewardAdapter`` one of a sequence
    classifier.
    ``Model`` and ``RewardModel`` are whole models in safetensors; ``GGUF`` is one file with an Ollama Modelfile.
    """

    LORA = "LoRA"
    RSLORA = "RSLoRA"
    DORA = "DoRA"
    REWARD_ADAPTER = "RewardAdapter"
    MODEL = "Model"
    REWARD_MODEL = "RewardModel"
    GGUF = "GGUF"


class Manifest(Document):
    """``manifest.json`` of an artifact; ``rank`` and ``target_modules`` are an adapter's.

    ``noise`` is None in manifests of earlier releases and where nothing was probed. ``chat`` is None in those of
    earlier releases and where the tokenizer has no chat template.
    """

    schema_version: Literal[1] = 1
    kind: ArtifactKind = ArtifactKind.LORA
    rank: int | None = None
    target_modules: tuple[str, ...] = ()
    files: tuple[File, ...]
    lineage: Lineage
    probes: tuple[Probe, ...] = Field(max_length=64)
    noise: ProbeNoise | None = None
    chat: ChatFormat | None = None

    def to_bytes(self) -> bytes:
        """Bytes that are stored and digested."""
        return canonical_json(self.to_dict())

    @property
    def digest(self) -> str:
        """The artifact's digest."""
        return sha256_digest(self.to_bytes())
