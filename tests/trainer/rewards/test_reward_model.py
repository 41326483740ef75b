"""Reward models: training, artifact with output layer, scores of the loaded model."""

from typing import Any

import pytest
from safetensors.torch import load_file
from stages.stage_world import RowBuilders, World

from tunesmith_contract.artifact import ArtifactKind, Manifest
from tunesmith_data.failures import UserError
from tunesmith_trainer.rewards.reward_model import load_reward_model

METHOD = {"reward": {"maxLength": 64}}


@pytest.mark.parametrize(
    "adapter", [{"rank": 4}, {"rank": 4, "type": "QLoRA"}, None], ids=["LoRA", "QLoRA", "full"]
)
def test_a_reward_model_tells_the_better_answer(world: World, make: RowBuilders, adapter: Any) -> None:
    rows = make.preferences(48)
    uri = world.write_rows("train.jsonl", rows)
    prepared = world.prepare(world.prepare_config(uri, method=METHOD))
    rate = 1e-2 if adapter else 1e-3
    config = world.train_config(
        prepared, method=METHOD, adapter=adapter, hyperparameters={"learningRate": rate, "epochs": 2}
    )
    report = world.train(config).training
    assert report.eval_loss is not None
    assert report.eval_loss < 0.3  # log 2 before
    folder = world.storage.artifact_folder(report.artifact.uri)
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    assert manifest.kind is (ArtifactKind.REWARD_ADAPTER if adapter else ArtifactKind.REWARD_MODEL)
    assert not manifest.probes
    if adapter:
        names = load_file(folder / "adapter_model.safetensors")
        assert [name for name in names if "score" in name] == ["base_model.model.score.weight"]

    model = load_reward_model(world.storage, report.artifact.uri, digest=report.artifact.digest, device="cpu")
    fresh = make.preferences(20, seed=9)
    chosen, rejected = (
        model.score([{"prompt": row["prompt"], "completion": row[key]} for row in fresh])
        for key in ("chosen", "rejected")
    )
    assert sum(good > bad for good, bad in zip(chosen, rejected, strict=True)) >= 19
    # Neither the batch nor the padding changes a number.
    alone = model.score([{"prompt": fresh[3]["prompt"], "completion": fresh[3]["chosen"]}])
    assert alone == pytest.approx([chosen[3]], abs=1e-4)


def test_a_reward_model_goes_on_from_an_earlier_one(world: World, make: RowBuilders) -> None:
    uri = world.write_rows("train.jsonl", make.preferences(48))
    numbers = {"learningRate": 1e-2, "epochs": 2}
    prepared = world.prepare(world.prepare_config(uri, method=METHOD))
    first = world.train(world.train_config(prepared, method=METHOD, hyperparameters=numbers)).training
    initial = {"uri": first.artifact.uri, "digest": first.artifact.digest}
    prepared = world.prepare(world.prepare_config(uri, uid="on", method=METHOD))
    config = world.train_config(
        prepared,
        uid="on",
        method=METHOD,
        initial=initial,
        hyperparameters={"learningRate": 1e-5, "maxSteps": 2},
    )
    assert world.train(config).training.eval_loss == pytest.approx(first.eval_loss, abs=0.05)


def test_only_a_reward_models_artifact_is_loaded(world: World, make: RowBuilders) -> None:
    prepared = world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(12))))
    artifact = world.train(world.train_config(prepared)).training.artifact
    with pytest.raises(UserError, match="method reward"):
        load_reward_model(world.storage, artifact.uri, device="cpu")
    (world.storage.artifact_folder(artifact.uri) / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="holds other files"):
        load_reward_model(world.storage, artifact.uri, device="cpu")
    with pytest.raises(UserError, match="method reward"):
        load_reward_model(world.storage, artifact.uri, device="cpu", read_files=False)
    with pytest.raises(UserError, match="write its digest"):
        load_reward_model(world.storage, artifact.uri, digest="sha256:" + "0" * 64, device="cpu")
