"""DDP and DeepSpeed: loss curves equal to one process, settings, rendezvous."""

import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch
from deepspeed.utils import safe_get_full_fp32_param
from models.probe_log_probs import mean_log_prob
from stages.gangs import Pod, end_gang, losses, start_gang
from stages.ranks import run_ranks
from stages.stage_world import RowBuilders, World
from transformers import AutoModelForCausalLM

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.report import Artifact
from tunesmith_contract.run_config import OutputFormat, TrainConfig
from tunesmith_data.failures import Preempted, StageError, UserError
from tunesmith_data.pod.storage import holds_files
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.distributed.parallel import (
    accumulation_steps,
    build_deepspeed_config,
    check_combination,
)
from tunesmith_trainer.train.distributed.rendezvous import Rendezvous, join_gang

STEPS = 6
LORA = {"rank": 4, "dropout": 0.0}
QLORA = LORA | {"type": "QLoRA"}
MERGED = ["Adapter", "Merged"]
SECONDS = 300

#: Sums in another order; with 4-bit weights on a CPU, products in bfloat16 too.
TOLERANCE = 1e-5
TOLERANCE_4_BIT = 1e-3


class Curves:
    """Runs of the same rows that share the work in different ways."""

    def __init__(self, world: World, make: RowBuilders) -> None:
        self.world = world
        rows = world.write_rows("train.jsonl", make.rows(30))
        self._prepared = world.prepare(world.prepare_config(rows, uid="prepared"))
        self._one: dict[str, dict[int, float]] = {}

    def config(self, uid: str, adapter: Any, **more: Any) -> TrainConfig:
        folders = self.world.output / "ns"
        shutil.copytree(folders / "prepared/prepared", folders / uid / "prepared")
        config: TrainConfig = self.world.train_config(
            self._prepared,
            uid=uid,
            adapter=adapter,
            hyperparameters={"microBatchSize": 1, "maxSteps": STEPS},
            checkpoints={"everySteps": 2, "keep": 2},
            **more,
        )
        return config

    def checkpoints(self, uid: str) -> Path:
        folder: Path = self.world.output / "ns" / uid / "checkpoints"
        return folder

    def of_one(self, kind: str, adapter: Any) -> dict[int, float]:
        """The curve of one process."""
        if kind not in self._one:
            self.world.train(self.config(f"one-{kind}", adapter))
            self._one[kind] = losses(self.checkpoints(f"one-{kind}"))
        return self._one[kind]

    def of_gang(self, config: TrainConfig, *, nodes: int, workers: int) -> dict[int, float]:
        """The curve of a gang, whose artifact is whole."""
        pods = start_gang(self.world.root, config, nodes=nodes, workers=workers)
        assert end_gang(pods, SECONDS) == [0] * nodes, pods[0].output
        self._check_artifact(pods[0], exports=len(set(config.formats) - {OutputFormat.ADAPTER}))
        return losses(self.checkpoints(config.owner.uid))

    def interrupt(self, config: TrainConfig, *, nodes: int, workers: int) -> None:
        """The same gang, told to go at its third step."""
        pods: list[Pod] = []
        seen = []

        def look(line: str) -> None:
            seen.extend(["'loss'"] * ("'loss'" in line))
            if len(seen) == STEPS // 2:
                pods[-1].process.send_signal(signal.SIGTERM)

        pods += start_gang(self.world.root, config, nodes=nodes, workers=workers, on_line=look)
        assert end_gang(pods, SECONDS) == [ExitCode.PREEMPTED] * nodes, pods[0].output

    def _check_artifact(self, pod: Pod, exports: int) -> None:
        training = pod.report.training
        assert training
        assert len(training.exports) == exports
        assert training.steps == STEPS
        _, manifest = self._artifact(training.artifact)
        assert manifest.probes
        assert all(probe.tuned_log_prob > probe.base_log_prob for probe in manifest.probes)
        for export in training.exports:
            folder, _ = self._artifact(export.artifact)
            merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            for probe in manifest.probes:
                assert mean_log_prob(merged, probe) == pytest.approx(probe.tuned_log_prob, abs=1e-4)

    def _artifact(self, artifact: Artifact) -> tuple[Path, Manifest]:
        folder = self.world.output / "sha256" / artifact.digest.removeprefix("sha256:")
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
        assert holds_files(folder, manifest.files)
        return folder, manifest


@pytest.fixture(scope="module")
def curves(shared_world: World, make: RowBuilders) -> Curves:
    """The curve of one process, computed once."""
    return Curves(shared_world, make)


def test_ddp(curves: Curves) -> None:
    config = curves.config("ddp", LORA)
    assert curves.of_gang(config, nodes=1, workers=2) == pytest.approx(
        curves.of_one("lora", LORA), rel=TOLERANCE
    )


@pytest.mark.parametrize("stage", [pytest.param("ZeRO2", marks=pytest.mark.long), "ZeRO3"])
def test_deepspeed_on_two_nodes_resumed_on_one(curves: Curves, stage: str) -> None:
    config = curves.config(f"resumed-{stage.lower()}", LORA, parallelism=stage, formats=MERGED)
    curves.interrupt(config, nodes=2, workers=1)
    found = curves.of_gang(config, nodes=1, workers=2)
    assert found == pytest.approx(curves.of_one("lora", LORA), rel=TOLERANCE)


def test_offload_without_a_compiler(curves: Curves, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(curves.world.root / "extensions"))
    config = curves.config(
        "offload",
        LORA,
        parallelism="ZeRO3",
        offload="All",
        activationCheckpointing=True,
        formats=MERGED,
    )
    found = curves.of_gang(config, nodes=1, workers=1)
    assert found == pytest.approx(curves.of_one("lora", LORA), rel=TOLERANCE)
    assert not (curves.world.root / "extensions").exists()


def test_packed_rows_with_zero_3(curves: Curves) -> None:
    """Blocks are recomputed by reentrant checkpointing there, which hands the bounds of the rows over once more."""
    packed = {"method": {"sft": {"maxLength": 64, "packing": True}}}
    curves.world.train(curves.config("one-packed", LORA, **packed))
    config = curves.config("packed", LORA, parallelism="ZeRO3", activationCheckpointing=True, **packed)
    found = curves.of_gang(config, nodes=1, workers=2)
    one = losses(curves.checkpoints("one-packed"))
    # The 13 packed rows are 3 batches and a rest, which two workers fill up and one leaves as it is.
    assert [found[step] for step in (1, 2, 3)] == pytest.approx(
        [one[step] for step in (1, 2, 3)], rel=TOLERANCE
    )


def test_whole_weights_are_gathered_from_their_parts(curves: Curves) -> None:
    config = curves.config("full", None, parallelism="ZeRO3")
    found = curves.of_gang(config, nodes=1, workers=2)
    assert found == pytest.approx(curves.of_one("full", None), rel=TOLERANCE)


def test_4_bit_weights_with_zero_2(curves: Curves) -> None:
    config = curves.config("qlora", QLORA, parallelism="ZeRO2")
    found = curves.of_gang(config, nodes=1, workers=2)
    assert found == pytest.approx(curves.of_one("qlora", QLORA), rel=TOLERANCE_4_BIT)


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        ({"offload": "Optimizer"}, "ZeRO2 or ZeRO3"),
        ({"offload": "All", "parallelism": "ZeRO2"}, "ZeRO3"),
        ({"parallelism": "ZeRO3", "adapter": QLORA}, "ZeRO2 or DDP"),
    ],
)
def test_what_deepspeed_cannot_do_is_refused(plain: TrainConfig, more: Any, advice: str) -> None:
    config = TrainConfig.model_validate(plain.to_dict() | more)
    with pytest.raises(UserError, match=advice):
        check_combination(config)


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize(
    ("parallelism", "offload"), [("ZeRO2", "None"), ("ZeRO2", "Optimizer"), ("ZeRO3", "All")]
)
def test_deepspeed_is_told_numbers(plain: TrainConfig, parallelism: str, offload: str, on_gpu: bool) -> None:
    config = TrainConfig.model_validate(plain.to_dict() | {"parallelism": parallelism, "offload": offload})
    steps = accumulation_steps(16, 2, world=4)
    found = build_deepspeed_config(config, 2, steps, 4, on_gpu=on_gpu)
    assert found
    assert "auto" not in str(found)
    assert found["train_batch_size"] == 16
    assert found["bf16"] == {"enabled": on_gpu}
    assert found["data_types"] == {"grad_accum_dtype": "bf16" if on_gpu else "fp32"}
    zero = found["zero_optimization"]
    assert zero["stage"] == int(parallelism[-1])
    assert ("offload_optimizer" in zero, "offload_param" in zero) == (offload != "None", offload == "All")
    assert build_deepspeed_config(plain, 2, steps, 4, on_gpu=on_gpu) is None


@pytest.mark.parametrize(
    ("parallelism", "offload", "rows", "type_on_gpu"),
    [
        ("ZeRO2", "None", 8, "bf16"),
        ("ZeRO2", "None", 9, "fp32"),
        ("ZeRO3", "None", 9, "fp32"),
        ("ZeRO3", "All", 9, "fp32"),
        # In float32 the sum would be on the GPU.
        ("ZeRO2", "Optimizer", 9, "bf16"),
    ],
)
def test_gradients_of_many_rows_are_added_up_in_float32(
    plain: TrainConfig, parallelism: str, offload: str, rows: int, type_on_gpu: str
) -> None:
    config = TrainConfig.model_validate(plain.to_dict() | {"parallelism": parallelism, "offload": offload})
    for on_gpu, expected in ((True, type_on_gpu), (False, "fp32")):
        found = build_deepspeed_config(config, 1, rows, 4, on_gpu=on_gpu)
        assert found
        assert found["data_types"] == {"grad_accum_dtype": expected}


@pytest.mark.parametrize(("stage", "offload"), [("ZeRO2", "None"), ("ZeRO3", "None"), ("ZeRO3", "Optimizer")])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # DeepSpeed calls torch by older names
def test_many_small_gradients_are_not_lost_in_their_sum(plain: TrainConfig, stage: str, offload: str) -> None:
    """The first pass has a gradient of 1, and each of the others one that bfloat16 can't add to it."""
    passes = 65
    config = TrainConfig.model_validate(plain.to_dict() | {"parallelism": stage, "offload": offload})

    def sum_of_gradients(settings: dict[str, Any]) -> float:
        return float(run_ranks(lambda _: accumulate(settings, passes), ranks=1)[0])

    settings = build_deepspeed_config(config, 1, passes, 1, on_gpu=True)
    assert settings
    assert sum_of_gradients(settings) == pytest.approx(1 + 64 / 1024)
    assert sum_of_gradients(settings | {"data_types": {"grad_accum_dtype": "bf16"}}) == 1


def accumulate(settings: dict[str, Any], passes: int) -> float:
    """Sum of a weight's gradients of several passes, as an optimizer with rate 1 takes it from the weight."""
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    host = {"overlap_comm": False, "stage3_param_persistence_threshold": 0}
    settings = settings | {
        "zero_optimization": settings["zero_optimization"] | host,
        "gradient_clipping": 0.0,
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    for number in range(passes):
        gradient = 1.0 if number == 0 else 1 / 1024
        # DeepSpeed divides each loss by the number of passes.
        loss = engine(torch.full((1, 1), gradient, dtype=torch.bfloat16)).sum() * passes
        engine.backward(loss)
        engine.step()
    weight = safe_get_full_fp32_param(next(engine.module.parameters()))
    return -float(weight)


def rendezvous(rank: int, **more: Any) -> Rendezvous:
    """A worker whose others never come."""
    return Rendezvous(rank=rank, world_size=3, join_seconds=0.3, **more)


@pytest.mark.parametrize(
    ("rank", "master", "complaint"),
    [
        (0, "localhost", "workers 1, 2 did not join"),
        (1, "absent.invalid", "the name absent.invalid does not resolve"),
        (1, "localhost", "worker 0 does not listen at localhost:9"),
    ],
)
def test_who_is_missing_is_named(rank: int, master: str, complaint: str) -> None:
    port = 9 if rank else 0
    with pytest.raises(StageError, match=complaint) as caught:
        join_gang(rendezvous(rank, master_addr=master, master_port=port), Preemption(), on_gpu=False)
    assert (caught.value.category, caught.value.reason) == ("Communication", "GangIncomplete")


def test_a_pod_that_is_told_to_go_waits_no_longer() -> None:
    preemption = Preemption()
    preemption.requested = True
    with pytest.raises(Preempted):
        join_gang(rendezvous(0), preemption, on_gpu=False)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the kernel has no IPv6")
def test_ranks_meet_at_an_address_of_ipv6() -> None:
    def add(rank: int) -> float:
        total = torch.tensor(float(rank + 1))
        torch.distributed.all_reduce(total)
        return float(total)

    assert run_ranks(add, environment={"MASTER_ADDR": "::1"}) == [3.0, 3.0]
