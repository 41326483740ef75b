"""What is trained and how: the adapter, the hyperparameters, when to stop."""

from typing import Annotated

from pydantic import Field

from tunesmith_contract.run_config import AdapterType, Scheduler

from .common import StrictModel
from .rules import Rule, matching
from .values import BatchSize, DecimalString, Fraction, LearningRate, PositiveDecimal

ALL_LINEAR = "all-linear"

_NEVER_ADAPTED = ("lm_head", "embed_tokens", "wte", "embed_out")
_NEVER_IN_CEL = ", ".join(f"'{name}'" for name in _NEVER_ADAPTED)


class Adapter(StrictModel):
    """A low-rank adapter: small matrices beside the frozen weights of the base model."""

    rules = (
        Rule(
            f"!('{ALL_LINEAR}' in self.targetModules) || self.targetModules.size() == 1",
            "all-linear is every linear layer already: write it alone, or name single modules.",
            lambda adapter: ALL_LINEAR not in adapter.target_modules or len(adapter.target_modules) == 1,
            ".targetModules",
        ),
        Rule(
            "self.targetModules.all(m, !(m.split('.')[m.split('.').size() - 1] in [" + _NEVER_IN_CEL + "]))",
            "The embeddings and the output layer can't get an adapter that can be served: leave lm_head and "
            "embed_tokens out.",
            lambda adapter: not any(name.split(".")[-1] in _NEVER_ADAPTED for name in adapter.target_modules),
            ".targetModules",
        ),
        Rule(
            "self.type == 'QLoRA' || !has(self.doubleQuantization)",
            "doubleQuantization is about 4-bit weights: leave it out, or write type: QLoRA.",
            lambda adapter: adapter.type is AdapterType.QLORA or adapter.double_quantization is None,
            ".doubleQuantization",
        ),
    )

    type: AdapterType = Field(
        AdapterType.LORA,
        description="LoRA: the usual choice. RSLoRA: scaled by alpha / sqrt(rank), for large ranks. DoRA: learns "
        "magnitudes too; slower, and served only as output.formats: [Merged]. QLoRA: LoRA on base weights kept in 4 "
        "bits (NF4), which takes the least memory.",
    )
    rank: int = Field(
        16,
        ge=1,
        le=512,
        description="Size of the adapter's matrices: 8 to 32 for a task, more for much data. An "
        "AdapterDeployment must allow it (engine.maxRank); no more than 512 can be served.",
    )
    alpha: int = Field(
        32,
        ge=1,
        le=4096,
        description="Scale of the adapter: its output is multiplied by alpha / rank (RSLoRA: alpha / sqrt(rank)).",
    )
    dropout: Fraction = Field(
        "0", description='Share of the adapter\'s inputs dropped in training, such as "0.05".'
    )
    target_modules: Annotated[
        tuple[
            Annotated[
                str,
                Field(max_length=128),
                matching(
                    r"^(all-linear|[A-Za-z0-9_.]+)$",
                    "Write module names such as q_proj, or all-linear for all.",
                ),
            ],
            ...,
        ],
        Field(min_length=1, max_length=32),
    ] = Field(
        (ALL_LINEAR,),
        description="The linear layers that get an adapter, by the end of their name: [q_proj, v_proj]. "
        "[all-linear]: all but the output layer.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    double_quantization: bool | None = Field(
        None,
        description="QLoRA only: quantise the constants of the quantisation too, which saves 0.4 bits a weight. "
        "Absent: true.",
    )


class Hyperparameters(StrictModel):
    """How training goes. The defaults suit some hundred to some thousand rows."""

    epochs: int = Field(3, ge=1, le=1000, description="How often all rows are gone through.")
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None, description="Stop after so many optimizer steps, where the epochs take more."
    )
    learning_rate: LearningRate = Field(
        "Auto",
        description='Peak learning rate in quotes, such as "2e-4". Auto: chosen for method and adapter; '
        "status.resolved shows it.",
    )
    batch_size: BatchSize = Field(
        "Auto",
        description="Rows per optimizer step, over all GPUs; with packing, packed sequences; with grpo and rloo, "
        "answers. Auto: chosen for the number of rows; status.resolved shows it.",
    )
    micro_batch_size: BatchSize = Field(
        "Auto",
        description="Rows that go through the model at once on one GPU. Less takes less memory and more time, and "
        "changes nothing else: steps are accumulated up to batchSize. Auto: chosen for maxLength.",
    )
    warmup_ratio: Fraction = Field("0.03", description="Share of the steps in which the learning rate rises.")
    scheduler: Scheduler = Field(
        Scheduler.LINEAR,
        description="How the learning rate goes on after that. Linear and Cosine fall to 0; Constant stays.",
    )
    weight_decay: DecimalString = Field("0", description='Pull of the weights towards 0, such as "0.01".')
    max_grad_norm: PositiveDecimal = Field(
        "1", description='Gradients are scaled down to this norm, such as "1".'
    )
    seed: int = Field(
        42,
        ge=0,
        le=4_294_967_295,
        description="Seed of the split, the order of rows and the adapter's first weights.",
    )


class EarlyStopping(StrictModel):
    """Stop when the validation rows bring nothing better: their loss no longer falls, or the reward of answers to them
    no longer rises. The artefact holds the best weights, not the last.
    """

    patience: int = Field(
        3, ge=1, le=1000, description="How many measurements in a row may bring nothing better."
    )
    min_delta: DecimalString = Field(
        "0",
        description='How much lower a loss, or higher a reward, has to be to count as better, such as "0.001".',
    )
