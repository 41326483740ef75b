"""Reward models: a base model that ends in one number per conversation, learned from preferences."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from tunesmith_contract.artifact import ArtifactKind, Manifest
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_contract.methods import Method
from tunesmith_contract.run_config import AdapterSource
from tunesmith_data.failures import UserError
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.tokenizer import load_tokenizer, set_padding
from tunesmith_data.pod.artifacts import verified_artifact
from tunesmith_data.pod.storage import Storage, file_digest
from tunesmith_data.rows.schema.formats import Row

_BATCH = 8


class RewardModel:
    """Judges answers.

    Args:
        model: a sequence classifier with one label.
        renderer: of the model's own tokenizer.
        max_length: where conversations were cut in training.
    """

    def __init__(self, model: Any, renderer: Renderer, max_length: int) -> None:
        self._model = model
        self._renderer = renderer
        self._max_length = max_length

    def score(self, rows: Sequence[Row]) -> list[float]:
        """A number per row of ``prompt`` and ``completion``, each text or messages; the higher, the better.

        Raises:
            RenderError: the model's template refuses a row.
        """
        ids = [self._renderer.tokens(row).answered[: self._max_length] for row in rows]
        batches = [ids[begin : begin + _BATCH] for begin in range(0, len(ids), _BATCH)]
        return [number for batch in batches for number in self._run(batch)]

    def _run(self, ids: list[list[int]]) -> Iterator[float]:
        encoded = {"input_ids": ids}
        padded = self._renderer.tokenizer.pad(encoded, padding_side="right", return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**padded.to(self._model.device), use_cache=False).logits
        yield from logits[:, 0].float().tolist()


def load_reward_model(
    storage: Storage, uri: str, base: str | None = None, digest: str | None = None
) -> RewardModel:
    """A reward model from its artefact, verified file by file.

    Args:
        storage: finds what the URIs name.
        uri: the artefact of a method reward.
        base: the model it was trained on; what the artefact names if absent.
        digest: what the artefact has to be, if given.

    Raises:
        UserError: it is no reward model's artefact, or not the one that was meant.
    """
    digest = digest or file_digest(storage.artifact_folder(uri) / MANIFEST_FILE)
    folder, manifest = verified_artifact(AdapterSource(uri=uri, digest=digest), storage)
    max_length = _max_length(manifest, uri)
    base_folder = storage.model_folder(base or manifest.lineage.base_model, weights=True)
    tokenizer = load_tokenizer(base_folder)
    set_padding(tokenizer)
    if manifest.kind is ArtifactKind.REWARD_ADAPTER:
        model = PeftModel.from_pretrained(_load_classifier(base_folder), folder)
    else:
        model = _load_classifier(folder)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.requires_grad_(False).eval()
    return RewardModel(
        model.to("cuda" if torch.cuda.is_available() else "cpu"), Renderer(tokenizer), max_length
    )


def _load_classifier(folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(
        folder,
        num_labels=1,
        dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
        local_files_only=True,
        use_safetensors=True,
    )


def _max_length(manifest: Manifest, uri: str) -> int:
    """Where the run that made the artefact cut its rows.

    Raises:
        UserError: another method made it.
    """
    method = Method.model_validate(manifest.lineage.parameters["method"])
    if method.reward is None:
        message = f"{uri} comes from method {method.key}: write the artefact of a job with method reward"
        raise UserError("NotARewardModel", message)
    return method.max_length
