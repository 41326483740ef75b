"""Fields of a FineTuneJob that depend on each other: what can't work is refused, with what to write instead.

Each rule reads a whole spec; what each field may be by itself stands with the field.
"""

from typing import Any

from tunesmith_contract.formats import LEARNED_FORMATS
from tunesmith_contract.methods import KTOLoss
from tunesmith_contract.run_config import AdapterType, DataFormat, Offload, OutputFormat, Parallelism

from .generate import GENERATE_RULES
from .rules import Rule, is_zero


def _format_rule(method: str, formats: tuple[DataFormat, ...]) -> Rule:
    known = ", ".join(f"'{name}'" for name in (DataFormat.AUTO, *formats))
    some = " or ".join(filter(None, (", ".join(formats[:-1]), formats[-1])))
    return Rule(
        f"!has(self.method.{method}) || self.dataset.format in [{known}]",
        f"{method} learns from {some} rows: write dataset.format: {formats[0]}, or leave it out.",
        lambda spec: spec.method.key != method or spec.dataset.format in (DataFormat.AUTO, *formats),
        ".dataset.format",
    )


def _adapter_type(spec: Any) -> AdapterType | None:
    return spec.adapter.type if spec.adapter else None


def _workspace_uri(spec: Any) -> str:
    found: str = spec.workspace.uri if spec.workspace else spec.output.uri
    return found


def _groups_are_whole(spec: Any) -> bool:
    online = spec.method.grpo or spec.method.rloo
    size = spec.hyperparameters.batch_size
    return online is None or size == "Auto" or size % online.generations == 0


def _has_neighbours(spec: Any) -> bool:
    kto, written = spec.method.kto, spec.hyperparameters
    return (
        kto is None or kto.loss is not KTOLoss.KTO or 1 not in (written.batch_size, written.micro_batch_size)
    )


def _cel_groups(method: str) -> str:
    return (
        f"!has(self.method.{method}) || type(self.hyperparameters.batchSize) != int || "
        f"int(self.hyperparameters.batchSize) % self.method.{method}.generations == 0"
    )


_ASKS_WITH_EXAMPLES = (
    "(self.evaluation.candidate.fewShot > 0 || self.evaluation.baseline.fewShot > 0 || "
    "self.evaluation.references.exists(r, r.fewShot > 0))"
)
#: As ``names_one_file``: a pattern, a folder, or the whole of a hub's repository.
_MANY_FILES = "[*]|/(@.*)?$|^hf://[^/]+/[^/@]+(@.*)?$"
_TRAINS_ON_FILES = (
    "(!has(self.dataset.train) || !has(self.dataset.train.argilla) && "
    "(has(self.dataset.train.uris) ? self.dataset.train.uris : "
    f"has(self.dataset.train.uri) ? [self.dataset.train.uri] : []).all(u, !u.matches('{_MANY_FILES}')))"
)


def _has_examples(spec: Any) -> bool:
    evaluation = spec.evaluation
    if evaluation is None or evaluation.few_shot_from is not None:
        return True
    sides = (evaluation.candidate, evaluation.baseline, *evaluation.references)
    return (
        not any(side.few_shot for side in sides) or spec.dataset.train is None or spec.dataset.train.is_files
    )


_METHOD_RULES = (
    *(_format_rule(method, formats) for method, formats in LEARNED_FORMATS.items()),
    Rule(
        " && ".join(f"({_cel_groups(method)})" for method in ("grpo", "rloo")),
        "batchSize counts answers, and each prompt gets as many answers as generations: write a "
        "multiple of generations, or Auto.",
        _groups_are_whole,
        ".hyperparameters.batchSize",
    ),
    Rule(
        "!has(self.method.kto) || self.method.kto.loss != 'KTO' || "
        "[self.hyperparameters.batchSize, self.hyperparameters.microBatchSize]"
        ".all(size, type(size) != int || int(size) > 1)",
        "KTO compares each row with others of its micro-batch: write a batchSize and microBatchSize "
        "of 2 or more, or kto: {loss: APOZeroUnpaired}.",
        _has_neighbours,
        ".hyperparameters",
    ),
    Rule(
        "!has(self.method.reward) || !has(self.evaluation)",
        "A reward model returns scores and not answers, so an EvalRun can't evaluate it: leave "
        "evaluation out. Its loss on the validation rows is in status.progress.",
        lambda spec: spec.method.reward is None or spec.evaluation is None,
        ".evaluation",
    ),
    Rule(
        "!has(self.method.reward) || !('GGUF' in self.output.formats)",
        "A reward model can't be written as GGUF: leave GGUF out of output.formats.",
        lambda spec: spec.method.reward is None or OutputFormat.GGUF not in spec.output.formats,
        ".output.formats",
    ),
    Rule(
        "!has(self.earlyStopping) || has(self.dataset.validation.uri) || "
        f"!{is_zero('self.dataset.validation.fraction')}",
        'earlyStopping needs validation rows: write dataset.validation: {fraction: "0.1"}, or a uri.',
        lambda spec: spec.early_stopping is None or not spec.dataset.validation.is_none,
        ".earlyStopping",
    ),
)

_DATA_RULES = (
    Rule(
        f"!has(self.evaluation) || has(self.evaluation.fewShotFrom) || !{_ASKS_WITH_EXAMPLES} || {_TRAINS_ON_FILES}",
        "fewShot draws examples from a single file, but dataset.train names a folder, a pattern or "
        "Argilla: add evaluation.fewShotFrom: {uri: …}.",
        _has_examples,
        ".evaluation",
    ),
)

_ADAPTER_RULES = (
    Rule(
        "!has(self.adapter) || self.adapter.type != 'DoRA' || has(self.method.reward) || "
        "'Merged' in self.output.formats",
        "A DoRA adapter can be served only when merged: add Merged to output.formats, or write type: LoRA.",
        lambda spec: (
            _adapter_type(spec) is not AdapterType.DORA
            or spec.method.reward is not None
            or OutputFormat.MERGED in spec.output.formats
        ),
        ".output.formats",
    ),
    Rule(
        "has(self.adapter) || !('Merged' in self.output.formats)",
        "Without an adapter, the result is already a complete model: leave Merged out of output.formats.",
        lambda spec: spec.adapter is not None or OutputFormat.MERGED not in spec.output.formats,
        ".output.formats",
    ),
    Rule(
        "!has(self.adapter) || self.adapter.type != 'QLoRA' || self.compute.parallelism != 'ZeRO3'",
        "QLoRA's 4-bit weights can't be divided over GPUs: write compute.parallelism: ZeRO2, or adapter.type: LoRA.",
        lambda spec: (
            _adapter_type(spec) is not AdapterType.QLORA or spec.compute.parallelism != Parallelism.ZERO3
        ),
        ".compute.parallelism",
    ),
    Rule(
        "!has(self.adapter) || self.adapter.type != 'QLoRA' || self.compute.offload != 'All'",
        "QLoRA's 4-bit weights stay on the GPU: write compute.offload: Optimizer or None, or adapter.type: LoRA.",
        lambda spec: _adapter_type(spec) is not AdapterType.QLORA or spec.compute.offload is not Offload.ALL,
        ".compute.offload",
    ),
)

_STORAGE_RULES = (
    Rule(
        "has(self.workspace) || !(self.output.uri.startsWith('oci://') || self.output.uri.startsWith('hf://'))",
        "oci:// and hf:// can hold artifacts only: set a location for work files, such as workspace: "
        "{uri: pvc://claim/work}.",
        lambda spec: spec.workspace is not None or not spec.output.uri.startswith(("oci://", "hf://")),
        ".workspace",
    ),
    Rule(
        "self.compute.nodes == 1 || (has(self.workspace) ? self.workspace.uri : self.output.uri)"
        ".startsWith('pvc://')",
        "Training on several nodes needs work files on a claim that all nodes can write to "
        "(ReadWriteMany): write workspace: {uri: pvc://claim/work}.",
        lambda spec: spec.compute.nodes == 1 or _workspace_uri(spec).startswith("pvc://"),
        ".workspace",
    ),
)

_BUDGET_RULES = (
    Rule(
        "!has(self.budget) || self.compute.gpusPerNode > 0",
        "budget counts GPU hours and has no effect with gpusPerNode: 0: leave it out. "
        "activeDeadlineSeconds limits the time.",
        lambda spec: spec.budget is None or spec.compute.gpus_per_node > 0,
        ".budget",
    ),
)

SPEC_RULES = (
    *GENERATE_RULES,
    *_METHOD_RULES,
    *_DATA_RULES,
    *_ADAPTER_RULES,
    *_STORAGE_RULES,
    *_BUDGET_RULES,
)
