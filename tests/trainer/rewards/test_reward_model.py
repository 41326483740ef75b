"""Reward models: training, artifact with output layer, scores of the loaded model."""

from typing import Any

import pytest
from safetensors.torch import load_file
from stages.stage_world import RowBuilders, TrainReport, World

from tunesmith_contract.artifact import ArtifactKind, Manifest
from tunesmith_data.failures import UserError
from tunesmith_trainer.rewards.reward_model import load_reward_model

METHOD = {"reward": {"maxLength": 64}}
ADAPTERS: dict[str, dict[str, Any] | None] = {
    "LoRA": {"rank": 4},
    "QLoRA": {"rank": 4, "type": "QLoRA"},
    "full": None,
}


class Judges:
    """Reward models that learn from the same rows."""

    def __init__(self, world: World, make: RowBuilders) -> None:
        self.world = world
        self._rows = world.write_rows("train.jsonl", make.preferences(48))
        self._trained: dict[str, TrainReport] = {}

    def train(self, uid: str, **more: Any) -> TrainReport:
        """Train one."""
        prepared = self.world.prepare(self.world.prepare_config(self._rows, uid=uid, method=METHOD))
        config = self.world.train_config(
            prepared, uid=uid, method=METHOD, checkpoints={"everySteps": 100}, **more
        )
        return self.world.train(config)

    def of_kind(self, kind: str) -> TrainReport:
        """One that has learned, trained once for all tests."""
        if kind not in self._trained:
            adapter = ADAPTERS[kind]
            numbers = {"learningRate": 1e-2 if adapter else 1e-3, "epochs": 2}
            self._trained[kind] = self.train(kind.lower(), adapter=adapter, hyperparameters=numbers)
        return self._trained[kind]


@pytest.fixture(scope="module")
def judges(shared_world: World, make: RowBuilders) -> Judges:
    """Reward models on disk."""
    return Judges(shared_world, make)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_reward_model_tells_the_better_answer(judges: Judges, make: RowBuilders, kind: str) -> None:
    adapter, storage = ADAPTERS[kind], judges.world.storage
    report = judges.of_kind(kind).training
    assert report.eval_loss is not None
    assert report.eval_loss < 0.3  # log 2 before
    folder = storage.artifact_folder(report.artifact.uri)
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    assert manifest.kind is (ArtifactKind.REWARD_ADAPTER if adapter else ArtifactKind.REWARD_MODEL)
    assert not manifest.probes
    if adapter:
        names = load_file(folder / "adapter_model.safetensors")
        assert [name for name in names if "score" in name] == ["base_model.model.score.weight"]

    model = load_reward_model(storage, report.artifact.uri, digest=report.artifact.digest, device="cpu")
    fresh = make.preferences(20, seed=9)
    chosen, rejected = (
        model.score([{"prompt": row["prompt"], "completion": row[key]} for row in fresh])
        for key in ("chosen", "rejected")
    )
    assert sum(good > bad for good, bad in zip(chosen, rejected, strict=True)) >= 19
    # Neither the batch nor the padding changes a number.
    alone = model.score([{"prompt": fresh[3]["prompt"], "completion": fresh[3]["chosen"]}])
    assert alone == pytest.approx([chosen[3]], abs=1e-4)


def test_a_reward_model_goes_on_from_an_earlier_one(judges: Judges) -> None:
    first = judges.of_kind("LoRA").training
    initial = {"uri": first.artifact.uri, "digest": first.artifact.digest}
    numbers = {"learningRate": 1e-5, "maxSteps": 2}
    second = judges.train("on", adapter=ADAPTERS["LoRA"], initial=initial, hyperparameters=numbers)
    assert second.training.eval_loss == pytest.approx(first.eval_loss, abs=0.05)


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
