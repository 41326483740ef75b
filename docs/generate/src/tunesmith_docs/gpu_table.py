"""Table of the GPU memory that training takes: public models, GPUs and ways to train, by the operator's estimate."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.decide.finetunejob.defaults import resolve_parallelism
from tunesmith.decide.fit.gpus import ReachableGPUs
from tunesmith.decide.fit.memory_fit import fit_free_settings, judge_fit
from tunesmith.decide.fit.requests import training_requests
from tunesmith_contract.report import DatasetReport, Linear, ModelReport, ModelShape, TokenStatistics
from tunesmith_contract.run_config import Adapter, Offload, Parallelism, TrainConfig
from tunesmith_contract.shared_rules.defaults import choose_activation_checkpointing
from tunesmith_contract.shared_rules.gpus import find_product

from .markdown import table

GIB = 2**30

LENGTH, BATCH, RANK = 2048, 16, 16

#: Products whose memory stands for the cards of a size.
CARDS = {"24 GB": "L4", "48 GB": "L40S", "80 GB": "H100", "141 GB": "H200"}
GPUS = (1, 8)

_FREE = frozenset({"microBatchSize", "activationCheckpointing", "parallelism"})
_DOES_NOT_FIT = "no"


def describe_model(
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    key_value_heads: int,
    vocabulary: int,
    tied: bool = False,
    head_size: int | None = None,
    architecture: str = "LlamaForCausalLM",
) -> ModelReport:
    """Report of prepare on a model with the layers of Llama, from the numbers in its ``config.json``."""
    head_size = head_size or hidden // heads
    queries, keys = heads * head_size, key_value_heads * head_size
    linears = (
        Linear("gate_proj", hidden, intermediate, layers),
        Linear("up_proj", hidden, intermediate, layers),
        Linear("down_proj", intermediate, hidden, layers),
        Linear("q_proj", hidden, queries, layers),
        Linear("o_proj", queries, hidden, layers),
        Linear("k_proj", hidden, keys, layers),
        Linear("v_proj", hidden, keys, layers),
    )
    weights = sum(each.inputs * each.outputs * each.layers for each in linears)
    embeddings = vocabulary * hidden * (1 if tied else 2)
    return ModelReport(
        revision="r",
        architecture=architecture,
        parameters=weights + embeddings + (2 * layers + 1) * hidden,
        max_position_embeddings=131072,
        shape=ModelShape(
            hidden_size=hidden,
            intermediate_size=intermediate,
            layers=layers,
            attention_heads=heads,
            key_value_heads=key_value_heads,
            head_size=head_size,
            vocabulary_size=vocabulary,
            tied_embeddings=tied,
            linears=linears,
        ),
    )


MODELS = {
    "Llama 3.2 1B": describe_model(2048, 8192, 16, 32, 8, 128256, tied=True),
    "Llama 3.1 8B": describe_model(4096, 14336, 32, 32, 8, 128256),
    "Qwen 2.5 14B": describe_model(5120, 13824, 48, 40, 8, 152064, architecture="Qwen2ForCausalLM"),
    "Qwen 2.5 32B": describe_model(5120, 27648, 64, 40, 8, 152064, architecture="Qwen2ForCausalLM"),
    "Llama 3.1 70B": describe_model(8192, 28672, 80, 64, 8, 128256),
}


@dataclass(frozen=True, slots=True)
class Way:
    """A way to train.

    Attributes:
        name: its name in the table.
        settings: members of the run configuration.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


WAYS = (
    Way("QLoRA", {"adapter": {"type": "QLoRA", "rank": RANK}}),
    Way("LoRA", {"adapter": {"rank": RANK}}),
    Way("all weights"),
    Way("all weights, offloaded", {"offload": "All"}),
)

DATASET = DatasetReport(
    digest="sha256:" + "0" * 64,
    format="Chat",
    rows=1000,
    train_rows=1000,
    validation_rows=0,
    tokens=TokenStatistics(p50=LENGTH, p95=LENGTH, max=LENGTH, total=1000 * LENGTH),
)


def gpu_memory_page(notice: str) -> str:
    """The page with one table for each number of GPUs."""
    introduction = (
        "What training takes by the [memory estimate](../memory.md): supervised fine-tuning on packed rows of "
        f"{LENGTH:,} tokens, batches of {BATCH} rows, adapters of rank {RANK} on all linear layers, and all else left "
        "to Auto. These are estimates, not measurements."
    )
    legend = (
        "A cell is the memory of each GPU in GiB, and how the GPUs share the work if not by DDP. "
        f"*{_DOES_NOT_FIT}*: it does not fit. *Offloaded* is `compute.offload: All`: optimizer and weights are in host "
        "memory, which is slow. *Host memory* is what each training pod requests, with the settings for the smallest "
        "card in which it fits."
    )
    parts = [notice, "# GPU memory of public models", introduction, legend]
    for gpus in GPUS:
        parts += [f"## {gpus} GPU{'s' if gpus > 1 else ''}", _gpus_table(gpus)]
    return "\n\n".join(parts) + "\n"


def settle_run(model: ModelReport, way: Way, gpus: int, total: int) -> TrainConfig | None:
    """Run with the settings that the operator chooses for a card of so many bytes; None if none fits."""
    run = _default_run(model, way, gpus, total)
    settled = fit_free_settings(model, DATASET, run, total, _FREE)
    fit = judge_fit(model, DATASET, settled, ReachableGPUs(memory=total))
    return settled if fit and fit.fits else None


def _gpus_table(gpus: int) -> str:
    cards = (f"{size} ({product})" for size, product in CARDS.items())
    header = ("model", "trained", *cards, "host memory")
    return table(header, _rows(gpus))


def _rows(gpus: int) -> Iterator[list[str]]:
    for name, model in MODELS.items():
        for way in WAYS:
            runs = [settle_run(model, way, gpus, _total(product)) for product in CARDS.values()]
            cells = [
                _cell(model, run, _total(product)) for run, product in zip(runs, CARDS.values(), strict=True)
            ]
            yield [name, way.name, *cells, _host_memory(model, runs)]


def _cell(model: ModelReport, run: TrainConfig | None, total: int) -> str:
    if run is None:
        return _DOES_NOT_FIT
    fit = judge_fit(model, DATASET, run, ReachableGPUs(memory=total))
    assert fit is not None
    assert fit.memory is not None
    shared = run.gpus_per_node > 1 and run.parallelism is not Parallelism.DDP
    return f"{fit.memory.total / GIB:.1f}{f' {run.parallelism}' if shared else ''}"


def _host_memory(model: ModelReport, runs: Iterable[TrainConfig | None]) -> str:
    first = next(filter(None, runs), None)
    return training_requests(model, first)["memory"] if first else ""


def _total(product: str) -> int:
    """Bytes of a card, as its driver states them."""
    found = find_product(product)
    assert found is not None
    return found.memory


def _default_run(model: ModelReport, way: Way, gpus: int, total: int) -> TrainConfig:
    """The run as the operator resolves it before it looks at the memory."""
    adapter = Adapter.model_validate(way.settings["adapter"]) if "adapter" in way.settings else None
    offload = Offload(way.settings.get("offload", "None"))
    kind = adapter.type if adapter else None
    return TrainConfig.model_validate(
        {
            "owner": {"kind": "FineTuneJob", "namespace": "n", "name": "j", "uid": "u"},
            "baseModel": "pvc://models/base",
            "baseModelRevision": model.revision,
            "datasetDigest": DATASET.digest,
            "method": {"sft": {"maxLength": LENGTH, "packing": True}},
            "hyperparameters": {"learningRate": 1e-4, "batchSize": BATCH, "microBatchSize": 1},
            "checkpoints": {},
            "image": "i",
            "output": "pvc://artifacts/x",
            "gpusPerNode": gpus,
            "parallelism": resolve_parallelism("Auto", offload, (1, gpus), model.parameters, kind, total),
            "activationCheckpointing": choose_activation_checkpointing(model.parameters, gpus),
            **way.settings,
        }
    )
