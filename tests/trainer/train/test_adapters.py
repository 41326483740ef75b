"""Adapter kinds and full fine-tuning: artifacts, probes, training from an earlier artifact."""

from typing import Any

import pytest
import torch
from models.probe_log_probs import mean_log_prob
from peft import LoraConfig, PeftModel
from stages.stage_world import RowBuilders, TrainReport, World
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith_contract.artifact import ArtifactKind, Manifest
from tunesmith_data.failures import UserError

ADAPTERS = {
    "LoRA": ArtifactKind.LORA,
    "RSLoRA": ArtifactKind.RSLORA,
    "DoRA": ArtifactKind.DORA,
    "QLoRA": ArtifactKind.LORA,
}


def adapter_of(kind: str, **more: Any) -> dict[str, Any]:
    return {"adapter": {"type": kind, "rank": 4, "alpha": 8, **more}}


FULL = {"adapter": None}


class Jobs:
    """Jobs over one set of rows."""

    def __init__(self, world: World, make: RowBuilders) -> None:
        self._world = world
        uri = world.write_rows("train.jsonl", make.rows(24))
        self.prepared = world.prepare(world.prepare_config(uri))
        self._prepared = world.output / "ns/uid/prepared"
        self._number = 0
        self._plain: TrainReport | None = None

    def run(self, **more: Any) -> TrainReport:
        """Train five steps under a uid of its own."""
        self._number += 1
        uid = f"uid{self._number}"
        (self._world.output / "ns" / uid).mkdir()
        (self._world.output / "ns" / uid / "prepared").symlink_to(self._prepared)
        config = self._world.train_config(
            self.prepared, uid=uid, **({"hyperparameters": {"maxSteps": 5}} | more)
        )
        return self._world.train(config)

    def plain(self) -> TrainReport:
        """A LoRA adapter, trained once for all tests."""
        if self._plain is None:
            self._plain = self.run(**adapter_of("LoRA"))
        return self._plain

    def artifact(self, report: TrainReport) -> tuple[Any, Manifest]:
        """Folder and manifest."""
        folder = self._world.output / "sha256" / report.training.artifact.digest.removeprefix("sha256:")
        return folder, Manifest.model_validate_json((folder / "manifest.json").read_bytes())

    def base(self) -> Any:
        """The base model."""
        return AutoModelForCausalLM.from_pretrained(
            self._world.root / "pvc/models/llama", dtype=torch.float32
        )


@pytest.fixture(scope="module")
def jobs(shared_world: World, make: RowBuilders) -> Jobs:
    """A prepared data set to train on."""
    return Jobs(shared_world, make)


def initial(report: TrainReport) -> dict[str, Any]:
    artifact = report.training.artifact
    return {"initial": {"uri": artifact.uri, "digest": artifact.digest}}


def prove(manifest: Manifest, base: Any, tuned: Any) -> None:
    """The probes hold for models as a server has them."""
    assert manifest.probes
    for probe in manifest.probes:
        assert mean_log_prob(base.eval(), probe) == pytest.approx(probe.base_log_prob, abs=1e-4)
        assert mean_log_prob(tuned.eval(), probe) == pytest.approx(probe.tuned_log_prob, abs=1e-4)
        assert probe.tuned_log_prob > probe.base_log_prob


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_is_what_its_manifest_says_on_the_unquantised_base(jobs: Jobs, kind: str) -> None:
    folder, manifest = jobs.artifact(jobs.plain() if kind == "LoRA" else jobs.run(**adapter_of(kind)))
    assert manifest.kind is ADAPTERS[kind]
    adapter = PeftModel.from_pretrained(jobs.base(), folder)
    config = adapter.peft_config["default"]
    assert isinstance(config, LoraConfig)
    assert (config.use_rslora, config.use_dora) == (kind == "RSLoRA", kind == "DoRA")
    prove(manifest, jobs.base(), adapter)
    prove(manifest, jobs.base(), adapter.merge_and_unload())


def test_full_fine_tuning_gives_a_model_that_serves_by_itself(jobs: Jobs, shared_world: World) -> None:
    report = jobs.run(**FULL, hyperparameters={"maxSteps": 5, "learningRate": 1e-3})
    folder, manifest = jobs.artifact(report)
    assert manifest.kind is ArtifactKind.MODEL
    assert (manifest.rank, manifest.target_modules) == (None, ())
    assert manifest.lineage.seed == 42
    files = {file.path for file in manifest.files}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} < files
    original = AutoTokenizer.from_pretrained(shared_world.root / "pvc/models/llama")
    assert AutoTokenizer.from_pretrained(folder).chat_template == original.chat_template
    prove(manifest, jobs.base(), AutoModelForCausalLM.from_pretrained(folder))

    # An adapter on that model says so: it can only be served there.
    _, manifest = jobs.artifact(jobs.run(**adapter_of("LoRA"), **initial(report)))
    assert manifest.lineage.base_model == report.training.artifact.uri
    assert manifest.lineage.base_model_revision != jobs.prepared.model.revision
    assert manifest.lineage.initial == report.training.artifact.digest
    tuned = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for probe in manifest.probes:
        assert mean_log_prob(tuned, probe) == pytest.approx(probe.base_log_prob, abs=1e-4)


@pytest.mark.parametrize("kind", ["LoRA", "QLoRA"])
def test_training_goes_on_from_an_adapter(jobs: Jobs, kind: str) -> None:
    first = jobs.plain()
    report = jobs.run(**adapter_of(kind), **initial(first))
    before, after = first.training.curve[0].loss, report.training.curve[0].loss
    assert before is not None
    assert after is not None
    assert after < before - 0.3
    folder, manifest = jobs.artifact(report)
    assert manifest.lineage.initial == first.training.artifact.digest
    assert manifest.lineage.base_model == "pvc://models/llama"
    prove(manifest, jobs.base(), PeftModel.from_pretrained(jobs.base(), folder))


def test_an_artifact_that_does_not_fit_is_refused_with_what_to_write(jobs: Jobs) -> None:
    start = initial(jobs.plain())
    for more, said in (
        (adapter_of("LoRA", rank=8), "adapter.rank 4, and the job asks for 8: write 4"),
        (adapter_of("LoRA", alpha=4), "adapter.alpha 8"),
        (adapter_of("LoRA", targetModules=["q_proj"]), "adapter.targetModules ['all-linear']"),
        (adapter_of("DoRA"), "write adapter.type LoRA or QLoRA"),
        (FULL, "write adapter.type LoRA"),
    ):
        with pytest.raises(UserError, match="write") as caught:
            jobs.run(**more, **start)
        assert said in caught.value.message
    changed = {"initial": start["initial"] | {"digest": "sha256:" + 64 * "0"}}
    with pytest.raises(UserError, match="write its digest"):
        jobs.run(**adapter_of("LoRA"), **changed)

    folder, _ = jobs.artifact(jobs.plain())
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"x")
    with pytest.raises(UserError) as caught:
        jobs.run(**adapter_of("LoRA"), **start)
    weights.write_bytes(whole)
    assert caught.value.reason == "ArtifactDamaged"
