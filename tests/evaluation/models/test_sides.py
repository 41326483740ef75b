"""Artifacts that can't be evaluated on a base model."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tunesmith_contract.answer_formats import ChatFormat
from tunesmith_contract.artifact import ArtifactKind
from tunesmith_contract.evaluation import Side
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
        (ArtifactKind.MODEL, "newer", None, ""),
    ],
)
def test_an_artifact_has_to_fit_the_base_model(
    kind: ArtifactKind, revision: str, reason: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest: Any = SimpleNamespace(
        kind=kind, lineage=SimpleNamespace(base_model="pvc://models/llama", base_model_revision="older")
    )
    monkeypatch.setattr(sides, "verified_artifact", lambda source, storage: (Path("adapter"), manifest))
    monkeypatch.setattr(sides, "model_revision", lambda uri, folder: revision)
    monkeypatch.setattr(sides, "check_weights", lambda *_, **__: None)
    storage = cast(Storage, SimpleNamespace(model_folder=lambda uri, weights: Path("base")))
    compared = [Side(name="tuned", adapter=SOURCE)]
    if reason is None:
        (group,) = sides.verify_sides("pvc://models/llama", compared, storage).groups
        assert group.side_revision("tuned") == SOURCE.digest
        return
    with pytest.raises(UserError) as raised:
        sides.verify_sides("pvc://models/llama", compared, storage)
    assert raised.value.reason == reason
    assert said in str(raised.value)


def test_sides_share_a_base_model_and_whole_models_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"whole": ArtifactKind.MODEL, "adapter": ArtifactKind.LORA}

    def verified(source: ArtifactSource, _: Storage) -> tuple[Path, Any]:
        name = source.uri.rpartition("/")[2]
        lineage = SimpleNamespace(base_model_revision="of first", base_model="first")
        return Path(name), SimpleNamespace(kind=kinds[name], lineage=lineage)

    monkeypatch.setattr(sides, "verified_artifact", verified)
    monkeypatch.setattr(sides, "model_revision", lambda uri, folder: f"of {uri}")
    monkeypatch.setattr(sides, "check_weights", lambda *_, **__: None)
    fetched: list[str] = []

    def model_folder(uri: str, *, weights: bool) -> Path:
        fetched.append(uri)
        return Path(uri)

    storage = cast(Storage, SimpleNamespace(model_folder=model_folder))
    digest = "sha256:" + "1" * 64
    adapter, whole = (ArtifactSource(uri=f"pvc://out/{name}", digest=digest) for name in ("adapter", "whole"))
    found = sides.verify_sides(
        "first",
        [
            Side(name="a", adapter=adapter),
            Side(name="b", model="second"),
            Side(name="c"),
            Side(name="d", adapter=whole),
            Side(name="e", adapter=whole, system_prompt="x"),
        ],
        storage,
    )
    assert [group.sides for group in found.groups] == [("a", "c"), ("b",), ("d", "e")]
    assert fetched == ["first", "second"]
    assert found.groups[0].side_revision("c") == "of first"
    with pytest.raises(UserError, match="side x names no model"):
        sides.verify_sides(None, [Side(name="x")], storage)
    assert sides.verify_sides(None, [Side(name="x", adapter=whole)], storage).groups


def test_padding_is_the_end_of_a_text_where_a_tokenizer_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = SimpleNamespace(pad_token_id=None, pad_token=None, eos_token="</s>")
    monkeypatch.setattr(sides, "load_tokenizer", lambda folder, model: tokenizer)
    sides.padded_tokenizer(sides.ModelGroup(Path("model"), "r", ("a",), {}, {}))
    assert tokenizer.pad_token == "</s>"


def test_an_artifact_is_asked_with_the_switches_of_its_training() -> None:
    chat = ChatFormat(switches={"enable_thinking": False})
    manifests: Any = {"tuned": SimpleNamespace(chat=chat), "old": SimpleNamespace(chat=None)}
    compared = [Side(name=name) for name in ("tuned", "old", "base")]
    tuned, old, base = sides.LocalSides((), manifests, {}).with_switches(compared)
    assert (tuned.asked_switches, tuned.is_bare) == ({"enable_thinking": False}, True)
    assert [old, base] == compared[1:]
