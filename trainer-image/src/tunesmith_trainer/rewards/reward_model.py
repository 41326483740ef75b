"""Loading of a trained reward model, and its scores for answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from tunesmith_contract.artifact import ArtifactKind, Manifest
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_contract.methods import Method
from tunesmith_contract.sources import ArtifactSource
from tunesmith_data.failures import UserError
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.tokenizer import load_tokenizer, set_padding
from tunesmith_data.pod.artifacts import verified_artifact
from tunesmith_data.pod.storage import Storage, file_digest
from tunesmith_data.rows.schema.formats import Row
from tunesmith_trainer.gpu.device import Device

_BATCH_SIZE = 8


class RewardScorer:
    """Loaded reward model.

    Args:
        model: a sequence classifier with one label.
        renderer: renderer with the model's own tokenizer.
        max_length: number of tokens to which conversations were cut in training.
    """

    def __init__(self, model: Any, renderer: Renderer, max_length: int) -> None:
        self._model = model
        self._renderer = renderer
        self._max_length = max_length

    def score(self, rows: Sequence[Row]) -> list[float]:
        """One score per row, higher is better.

        Args:
            rows: rows with ``prompt`` and ``completion``, each text or messages.

        Raises:
            RenderError: the model's chat template rejects a row.
        """
        ids = [self._renderer.tokens(row).answered[: self._max_length] for row in rows]
        scores: list[float] = []
        for begin in range(0, len(ids), _BATCH_SIZE):
            batch = {"input_ids": ids[begin : begin + _BATCH_SIZE]}
            padded = self._renderer.tokenizer.pad(batch, padding_side="right", return_tensors="pt")
            with torch.inference_mode():
                logits = self._model(**padded.to(self._model.device), use_cache=False).logits
            scores += logits[:, 0].float().tolist()
        return scores


def load_reward_model(
    storage: Storage,
    uri: str,
    base: str | None = None,
    digest: str | None = None,
    *,
    device: Device,
    read_files: bool = True,
) -> RewardScorer:
    """Load a reward model from its artifact, whose manifest is verified.

    Args:
        storage: storage that resolves the URIs.
        uri: artifact of a run with method reward.
        base: URI of the base model; by default the one that the artifact names.
        digest: expected digest of the artifact, if any.
        device: where it computes, in bfloat16 on a GPU.
        read_files: verify the artifact's files as well, which reads all their bytes.

    Raises:
        UserError: the artifact is not a reward model, or its digest differs.
    """
    digest = digest or file_digest(storage.artifact_folder(uri) / MANIFEST_FILE)
    folder, manifest = verified_artifact(
        ArtifactSource(uri=uri, digest=digest), storage, read_files=read_files
    )
    max_length = _max_length(manifest, uri)
    base_folder = storage.model_folder(base or manifest.lineage.base_model, weights=True)
    tokenizer = load_tokenizer(base_folder)
    set_padding(tokenizer)
    if manifest.kind is ArtifactKind.REWARD_ADAPTER:
        model = PeftModel.from_pretrained(_load_classifier(base_folder, device), folder)
    else:
        model = _load_classifier(folder, device)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.requires_grad_(False).eval()
    return RewardScorer(model.to(device), Renderer(tokenizer), max_length)


def _load_classifier(folder: Path, device: Device) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(
        folder,
        num_labels=1,
        dtype=torch.bfloat16 if device == "cuda" else torch.float32,
        local_files_only=True,
        use_safetensors=True,
    )


def _max_length(manifest: Manifest, uri: str) -> int:
    """Maximum row length of the run that made the artifact, in tokens.

    Raises:
        UserError: the artifact was made by another method than reward.
    """
    method = Method.model_validate(manifest.lineage.parameters["method"])
    if method.reward is None:
        message = f"{uri} comes from method {method.key}: write the artifact of a job with method reward"
        raise UserError("NotARewardModel", message)
    return method.max_length
