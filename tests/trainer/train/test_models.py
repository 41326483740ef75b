"""Devices onto which the model to train is loaded, and 4-bit weights that stay as they are."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tunesmith_contract.run_config import AdapterType, Parallelism, TrainConfig
from tunesmith_trainer.train.kernels import Kernels
from tunesmith_trainer.train.models import load_model


def config(gpus: int, parallelism: Parallelism, adapter: AdapterType | None) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "owner": {"kind": "FineTuneJob", "namespace": "ns", "name": "run", "uid": "uid"},
            "baseModel": "pvc://models/llama",
            "baseModelRevision": "r",
            "datasetDigest": "sha256:" + "0" * 64,
            "method": {"sft": {}},
            "adapter": {"type": adapter} if adapter else None,
            "hyperparameters": {"learningRate": 1e-3, "batchSize": 4, "microBatchSize": 2},
            "checkpoints": {"everySteps": 100},
            "gpusPerNode": gpus,
            "parallelism": parallelism,
            "image": "trainer",
            "output": "pvc://out",
        }
    )


@pytest.mark.parametrize("adapter", [None, AdapterType.LORA, AdapterType.QLORA])
@pytest.mark.parametrize(
    ("gpus", "parallelism", "device_map"),
    [
        (2, Parallelism.DDP, {"": 1}),
        (2, Parallelism.ZERO2, {"": 1}),
        # ZeRO-3 divides the weights while they are loaded, and refuses another placement.
        (2, Parallelism.ZERO3, None),
        (0, Parallelism.DDP, None),
    ],
)
def test_weights_go_straight_to_the_gpu_of_the_worker(
    gpus: int,
    parallelism: Parallelism,
    device_map: dict[str, int] | None,
    adapter: AdapterType | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []

    def load(folder: Path, **options: Any) -> torch.nn.Module:
        asked.append(options)
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    monkeypatch.setenv("LOCAL_RANK", "1")
    (tmp_path / "config.json").write_text("{}")
    load_model(tmp_path, config(gpus, parallelism, adapter), Kernels("sdpa"))
    assert asked[0].get("device_map") == device_map


def test_an_evaluation_leaves_quantized_weights_as_they_are(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU with AVX-512 BF16 bitsandbytes packs them anew, with rounded scales, and never unpacks them exactly."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    quantized = config(0, Parallelism.DDP, AdapterType.QLORA)
    model = load_model(models / "llama", quantized, Kernels("sdpa")).eval()
    weights = [parameter for parameter in model.parameters() if hasattr(parameter, "quant_state")]
    # Some bit patterns of packed weights are no number, and so equal to nothing.
    before = [
        (weight.data.view(torch.uint8).clone(), weight.quant_state.absmax.clone()) for weight in weights
    ]
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3]]))
    assert before
    for weight, (data, scales) in zip(weights, before, strict=True):
        assert torch.equal(weight.data.view(torch.uint8), data)
        assert torch.equal(weight.quant_state.absmax, scales)
