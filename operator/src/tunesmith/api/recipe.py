"""Adapter, hyperparameters and early stopping of a training run."""

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
    """A low-rank adapter: small trained matrices beside the frozen weights of the base model."""

    rules = (
        Rule(
            f"!('{ALL_LINEAR}' in self.targetModules) || self.targetModules.size() == 1",
            "all-linear already includes every linear layer: write it alone, or list single modules.",
            field=".targetModules",
        ),
        Rule(
            "self.targetModules.all(m, !(m.split('.')[m.split('.').size() - 1] in [" + _NEVER_IN_CEL + "]))",
            "Adapters on the embeddings and the output layer can't be served: leave out lm_head and "
            "embed_tokens.",
            field=".targetModules",
        ),
        Rule(
            "self.type == 'QLoRA' || !has(self.doubleQuantization)",
            "doubleQuantization applies to 4-bit weights only: leave it out, or write type: QLoRA.",
            field=".doubleQuantization",
        ),
    )

    type: AdapterType = Field(
        AdapterType.LORA,
        description="The type of the adapter. LoRA: the usual choice. RSLoRA: scaled by alpha / sqrt(rank), for "
        "large ranks. DoRA: also learns magnitudes; it is slower and can be served only as "
        "output.formats: [Merged]. QLoRA: LoRA on base weights quantized to 4 bits (NF4), which takes"
        " the least memory.",
    )
    rank: int = Field(
        16,
        ge=1,
        le=512,
        description="The rank of the adapter's matrices: 8 to 32 for one task, more for much data. An "
        "AdapterDeployment must allow it with engine.maxRank; ranks above 512 cannot be served.",
    )
    alpha: int = Field(
        32,
        ge=1,
        le=4096,
        description="The scale of the adapter: its output is multiplied by alpha / rank (RSLoRA: alpha / "
        "sqrt(rank)).",
    )
    dropout: Fraction = Field(
        "0", description='The share of the adapter\'s inputs that is dropped during training, such as "0.05".'
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
        description="The linear layers that receive an adapter, by the end of their names, such as [q_proj, "
        "v_proj]. With [all-linear], all linear layers except the output layer receive one.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    double_quantization: bool | None = Field(
        None,
        description="If true, the quantization constants are quantized as well, which saves 0.4 bits per weight. "
        "Used with type: QLoRA only. If unset, it is true.",
    )


class Hyperparameters(StrictModel):
    """Hyperparameters of training. The defaults suit some hundred to some thousand rows."""

    epochs: int = Field(3, ge=1, le=1000, description="The number of passes over all training rows.")
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None,
        description="The maximum number of optimizer steps. Training stops there even if epochs remain. If unset,"
        " epochs alone decides.",
    )
    learning_rate: LearningRate = Field(
        "Auto",
        description='The peak learning rate in quotes, such as "2e-4". Auto: chosen by method, adapter and its '
        "alpha, width of the model, rows per step and number of steps; status.resolved shows the choice.",
    )
    batch_size: BatchSize = Field(
        "Auto",
        description="The number of rows per optimizer step, over all GPUs. It counts packed sequences with "
        "packing, and answers with grpo and rloo. Auto: chosen by the number of rows; status.resolved"
        " shows the choice.",
    )
    micro_batch_size: BatchSize = Field(
        "Auto",
        description="The number of rows that one GPU processes at once. A smaller value takes less memory and "
        "more time; the result does not change, because gradients are accumulated up to batchSize. "
        "Auto: chosen by maxLength and the memory of the GPU.",
    )
    warmup_ratio: Fraction = Field(
        "0.03", description="The share of the steps in which the learning rate rises to its peak."
    )
    scheduler: Scheduler = Field(
        Scheduler.LINEAR,
        description="The course of the learning rate after warmup. Linear and Cosine decay to 0; Constant stays "
        "at the peak.",
    )
    weight_decay: DecimalString = Field(
        "0", description='The weight decay of the optimizer (AdamW), such as "0.01".'
    )
    max_grad_norm: PositiveDecimal = Field(
        "1", description='The norm to which larger gradients are clipped, such as "1".'
    )
    seed: int = Field(
        42,
        ge=0,
        le=4_294_967_295,
        description="The random seed of the validation split, the order of rows and the initial weights of the "
        "adapter.",
    )


class EarlyStopping(StrictModel):
    """Early stopping: training ends when the validation rows show no improvement.

    Improvement is a lower loss, or a higher reward with methods that learn from rewards. The artifact holds the best
    weights, not the last.
    """

    patience: int = Field(
        3,
        ge=1,
        le=1000,
        description="The number of consecutive measurements without improvement after which training stops.",
    )
    min_delta: DecimalString = Field(
        "0",
        description='The smallest change of loss or reward that counts as an improvement, such as "0.001".',
    )
