"""DDP on two gloo ranks with each method: no search for unused parameters, and none that is unused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stages.ranks import run_ranks
from transformers import Gemma3Config, LlamaConfig, MixtralConfig, PretrainedConfig, Qwen3MoeConfig

from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.tokenizer import load_tokenizer, set_padding
from tunesmith_data.pod.storage import Storage
from tunesmith_data.rows.table.split import Split
from tunesmith_trainer.train.arguments import uses_all_parameters
from tunesmith_trainer.train.context import TrainingContext
from tunesmith_trainer.train.kernels import Kernels
from tunesmith_trainer.train.methods.distillation import build_distillation_trainer
from tunesmith_trainer.train.methods.online import build_grpo_trainer
from tunesmith_trainer.train.methods.preference import build_dpo_trainer, build_kto_trainer
from tunesmith_trainer.train.methods.reward import build_reward_trainer
from tunesmith_trainer.train.methods.supervised import build_sft_trainer
from tunesmith_trainer.train.models import build_peft_config, load_model

#: DDP complains in the second step of parameters that the first one did not use.
STEPS = 2
PAIRS = [{"prompt": f"sort {n} 7", "chosen": f": {n}", "rejected": ": no"} for n in range(16)]
TEXTS = [
    {"messages": [{"role": "user", "content": f"sort {n} 7"}, {"role": "assistant", "content": f"{n}"}]}
    for n in range(16)
]
LABELED = [{"prompt": f"sort {n} 7", "completion": f": {n}", "label": n % 2 == 0} for n in range(16)]
PROMPTS = [{"prompt": f"sort {n} 7"} for n in range(16)]
DIGITS = {"name": "digits", "regex": {"pattern": "[0-9]"}}
ONLINE = {"rewards": [DIGITS], "generations": 2, "maxCompletionLength": 4}
LORA = {"rank": 4}

Builder = Callable[[TrainingContext], Any]

CASES: dict[str, tuple[Builder, dict[str, Any], list[dict[str, Any]], Any]] = {
    "SFT with LoRA": (build_sft_trainer, {"sft": {"maxLength": 64}}, TEXTS, LORA),
    "DPO with LoRA": (build_dpo_trainer, {"dpo": {"maxLength": 64}}, PAIRS, LORA),
    "DPO of all weights": (build_dpo_trainer, {"dpo": {"maxLength": 64}}, PAIRS, None),
    "KTO with LoRA": (build_kto_trainer, {"kto": {"maxLength": 64}}, LABELED, LORA),
    "reward model with LoRA": (build_reward_trainer, {"reward": {"maxLength": 64}}, PAIRS, LORA),
    "reward model of all weights": (build_reward_trainer, {"reward": {"maxLength": 64}}, PAIRS, None),
    "GRPO with LoRA": (build_grpo_trainer, {"grpo": ONLINE}, PROMPTS, LORA),
    "distillation with LoRA": (
        build_distillation_trainer,
        {"distillation": {"teacher": {"uri": "pvc://models/llama"}, "maxCompletionLength": 4}},
        PROMPTS,
        LORA,
    ),
}


def context(models: Path, folder: Path, method: dict[str, Any], rows: Any, adapter: Any) -> TrainingContext:
    """A run of a method on the tiny Llama."""
    config = TrainConfig.model_validate(
        {
            "owner": {"kind": "FineTuneJob", "namespace": "ns", "name": "run", "uid": "uid"},
            "baseModel": "pvc://models/llama",
            "baseModelRevision": "r",
            "datasetDigest": "sha256:" + "0" * 64,
            "method": method,
            "adapter": adapter,
            "hyperparameters": {"learningRate": 1e-3, "batchSize": 4, "microBatchSize": 2, "maxSteps": STEPS},
            "checkpoints": {"everySteps": 100},
            "image": "trainer",
            "output": "pvc://out",
        }
    )
    kernels = Kernels("sdpa")
    tokenizer = load_tokenizer(models / "llama")
    set_padding(tokenizer)
    return TrainingContext(
        config=config,
        model=load_model(models / "llama", config, kernels),
        peft_config=build_peft_config(config),
        kernels=kernels,
        renderer=Renderer(tokenizer),
        rows=Split(tuple(rows), ()),
        output_dir=folder,
        logs=folder,
        callbacks=[],
        storage=Storage(folder.parent),
    )


def test_each_method_trains_without_a_search_for_unused_parameters(models: Path, tmp_path: Path) -> None:
    (tmp_path / "pvc").mkdir()
    (tmp_path / "pvc/models").symlink_to(models)

    def work(rank: int) -> dict[str, tuple[bool, int]]:
        found = {}
        for name, (build, method, rows, adapter) in CASES.items():
            trainer = build(context(models, tmp_path / name, method, rows, adapter))
            trainer.train()
            found[name] = (trainer.model_wrapped.find_unused_parameters, trainer.state.global_step)
        return found

    for found in run_ranks(work):
        assert found == dict.fromkeys(CASES, (False, STEPS))


@pytest.mark.parametrize(
    ("config", "all_used"),
    [
        (LlamaConfig(), True),
        (MixtralConfig(), False),
        (Qwen3MoeConfig(), False),
        (Gemma3Config(), False),
        (Gemma3Config().text_config, True),
    ],
)
def test_experts_and_other_inputs_may_stay_unused(config: PretrainedConfig, all_used: bool) -> None:
    assert uses_all_parameters(config) is all_used
