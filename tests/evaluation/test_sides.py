"""Artifacts that can't be evaluated on a base model."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tunesmith_contract.artifact import ArtifactKind
from tunesmith_contract.sources import ArtifactSource
from tunesmith_data.failures import UserError
from tunesmith_data.pod.storage import Storage
from tunesmith_evaluation.models import sides

SOURCE = ArtifactSource(uri="pvc://out/adapter", digest="sha256:" + "0" * 64)


@pytest.mark.parametrize(
    ("kind", "revision", "reason", "said"),
    [
        (ArtifactKind.LORA, "newer", "BaseModelMismatch", "at older, not at newer"),
        (ArtifactKind.REWARD_MODEL, "older", "ArtifactKind", "RewardModel"),
        (ArtifactKind.GGUF, "older", "ArtifactKind", "GGUF"),
        (ArtifactKind.DORA, "older", None, ""),
        (ArtifactKind.MODEL, "older", None, ""),
    ],
)
def test_an_artifact_has_to_fit_the_base_model(
    kind: ArtifactKind, revision: str, reason: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest: Any = SimpleNamespace(
        kind=kind, lineage=SimpleNamespace(base_model="pvc://models/llama", base_model_revision="older")
    )
    monkeypatch.setattr(sides, "verified_artifact", lambda source, storage: (Path("adapter"), manifest))
    storage = cast(Storage, None)
    if reason is None:
        assert sides._verified(SOURCE, revision, storage) == (Path("adapter"), manifest)
        return
    with pytest.raises(UserError) as raised:
        sides._verified(SOURCE, revision, storage)
    assert raised.value.reason == reason
    assert said in str(raised.value)


def test_padding_is_the_end_of_a_text_where_a_tokenizer_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = SimpleNamespace(pad_token_id=None, pad_token=None, eos_token="</s>")
    monkeypatch.setattr(sides, "load_tokenizer", lambda folder: tokenizer)
    sides.padded_tokenizer(Path("model"))
    assert tokenizer.pad_token == "</s>"
