"""Validation rules over several fields of a FineTuneJob, each with a message that says what to write instead.

Each rule reads a whole spec; rules about a single field are declared with the field.
"""

from tunesmith_contract.formats import LEARNED_FORMATS
from tunesmith_contract.shared_rules.defaults import KTO_NEEDS_ROWS
from tunesmith_contract.sources import DataFormat

from .generate import GENERATE_RULES
from .rules import Rule, any_of, is_zero
from .search import SEARCH_RULES


def _format_rule(method: str, formats: tuple[DataFormat, ...]) -> Rule:
    allowed = ", ".join(f"'{name}'" for name in (DataFormat.AUTO, *formats))
    return Rule(
        f"!has(self.method.{method}) || self.dataset.format in [{allowed}]",
        f"{method} learns from {any_of(formats)} rows: write dataset.format: {formats[0]}, or leave it out.",
        field=".dataset.format",
    )


def _has_whole_groups(method: str) -> str:
    """CEL: with this method, the batch size is a multiple of the answers to each prompt."""
    return (
        f"!has(self.method.{method}) || type(self.hyperparameters.batchSize) != int || "
        f"int(self.hyperparameters.batchSize) % self.method.{method}.generations == 0"
    )


_METHOD_RULES = (
    *(_format_rule(method, formats) for method, formats in LEARNED_FORMATS.items()),
    Rule(
        " && ".join(f"({_has_whole_groups(method)})" for method in ("grpo", "rloo")),
        "batchSize counts answers, and each prompt gets as many answers as generations: write a "
        "multiple of generations, or Auto.",
        field=".hyperparameters.batchSize",
    ),
    Rule(
        "!has(self.method.kto) || self.method.kto.loss != 'KTO' || "
        "[self.hyperparameters.batchSize, self.hyperparameters.microBatchSize]"
        ".all(size, type(size) != int || int(size) > 1)",
        KTO_NEEDS_ROWS,
        field=".hyperparameters",
    ),
    Rule(
        "!has(self.method.reward) || !has(self.evaluation)",
        "A reward model returns scores and not answers, so an EvalRun can't evaluate it: leave "
        "evaluation out. Its loss on the validation rows is in status.progress.",
        field=".evaluation",
    ),
    Rule(
        "!has(self.method.reward) || !('GGUF' in self.output.formats)",
        "A reward model can't be written as GGUF: leave GGUF out of output.formats.",
        field=".output.formats",
    ),
    Rule(
        "!has(self.earlyStopping) || has(self.dataset.validation.uri) || "
        f"!{is_zero('self.dataset.validation.fraction')}",
        'earlyStopping needs validation rows: write dataset.validation: {fraction: "0.1"}, or a uri.',
        field=".earlyStopping",
    ),
)

_ADAPTER_RULES = (
    Rule(
        "!has(self.adapter) || self.adapter.type != 'DoRA' || has(self.method.reward) || "
        "'Merged' in self.output.formats",
        "A DoRA adapter can be served only when merged: add Merged to output.formats, or write type: LoRA.",
        field=".output.formats",
    ),
    Rule(
        "has(self.adapter) || !('Merged' in self.output.formats)",
        "Without an adapter, the result is already a complete model: leave Merged out of output.formats.",
        field=".output.formats",
    ),
    Rule(
        "!has(self.adapter) || self.adapter.type != 'QLoRA' || self.compute.parallelism != 'ZeRO3'",
        "QLoRA's 4-bit weights can't be divided over GPUs: write compute.parallelism: ZeRO2, or adapter.type: LoRA.",
        field=".compute.parallelism",
    ),
    Rule(
        "!has(self.adapter) || self.adapter.type != 'QLoRA' || self.compute.offload != 'All'",
        "QLoRA's 4-bit weights stay on the GPU: write compute.offload: Optimizer or None, or adapter.type: LoRA.",
        field=".compute.offload",
    ),
)

_STORAGE_RULES = (
    Rule(
        "has(self.workspace) || !(self.output.uri.startsWith('oci://') || self.output.uri.startsWith('hf://'))",
        "oci:// and hf:// can hold artifacts only: set a location for work files, such as workspace: "
        "{uri: pvc://claim/work}.",
        field=".workspace",
    ),
)

_BUDGET_RULES = (
    Rule(
        "!has(self.budget) || self.compute.gpusPerNode > 0",
        "budget counts GPU hours and has no effect with gpusPerNode: 0: leave it out. "
        "activeDeadlineSeconds limits the time.",
        field=".budget",
    ),
)

SPEC_RULES = (
    *GENERATE_RULES,
    *_METHOD_RULES,
    *_ADAPTER_RULES,
    *_STORAGE_RULES,
    *_BUDGET_RULES,
    *SEARCH_RULES,
)
