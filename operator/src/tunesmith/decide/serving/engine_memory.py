"""Condition ``Fits`` of an AdapterDeployment: memory that the engine needs, beside that of the GPUs."""

from collections.abc import Iterable
from typing import Literal

from tunesmith.api.adapterdeployment import AdapterDeployment, Engine
from tunesmith.api.common import Condition
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.reasons import ConditionType
from tunesmith.api.values import AUTO, memory_bytes
from tunesmith.decide.conditions import ConditionUpdate
from tunesmith.decide.fit.engine_fit import UTILIZATION, EngineFit, EngineSetup, judge_engine, weight_bytes
from tunesmith.decide.fit.gpus import fitting_nodes
from tunesmith.decide.fit.node_gpus import labels_of, read_gpu
from tunesmith.decide.fit.requests import engine_requests
from tunesmith.manifests.engine_container import EngineNeeds, adapter_slots, ready_adapters, shards_adapters
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import parse_result
from tunesmith_contract.report import ModelReport
from tunesmith_contract.stages import Stage
from tunesmith_contract.uris import MOUNTED, parse_uri

_UTILIZATION = "--gpu-memory-utilization"
#: Arguments of the engine that change the memory of weights or cache in a way that is not estimated.
_UNESTIMATED = (
    "--quantization",
    "-q",
    "--dtype",
    "--kv-cache-dtype",
    "--kv-cache-memory-bytes",
    "--num-gpu-blocks-override",
    "--cpu-offload",
    "--pipeline-parallel-size",
    "-pp",
    "--hf-overrides",
    "--speculative-config",
)
_JUDGED = frozenset({Reason.FITS, Reason.DOES_NOT_FIT, Reason.GPU_MEMORY_UNKNOWN})


def find_base_model(records: Iterable[Body]) -> ModelReport | None:
    """Sizes of the base model, from the records of FineTuneJobs that prepared data for it."""
    parsed = (parse_result(record) for record in records)
    reports = (record.report for record in parsed if record and record.stage is Stage.PREPARE)
    return next((report.model for report in reports if report and report.model), None)


def asks_for_nodes(deployment: AdapterDeployment, model: ModelReport | None) -> bool:
    """True if nodes must be observed: the memory of GPUs is asked for and this generation is not judged yet."""
    engine = deployment.spec.engine
    if engine.gpus == 0 or model is None or engine.gpu_memory != AUTO or _unestimated(engine):
        return False
    return not is_judged(deployment) or is_refused(deployment)


def is_judged(deployment: AdapterDeployment) -> bool:
    """True if ``Fits`` compares the sizes of the model with GPUs for this generation of the spec."""
    fits = _condition(deployment, ConditionType.FITS)
    return (
        fits is not None
        and fits.observed_generation == deployment.metadata.generation
        and fits.reason in _JUDGED
    )


def is_refused(deployment: AdapterDeployment) -> bool:
    """True if the last verdict was that the weights exceed every GPU."""
    stalled = _condition(deployment, ConditionType.STALLED)
    return stalled is not None and stalled.status == "True" and stalled.reason == Reason.DOES_NOT_FIT


def judge_memory(
    deployment: AdapterDeployment, model: ModelReport | None, nodes: tuple[Body, ...] | None
) -> EngineFit | None:
    """Memory verdict on the engine; None without GPUs, or where the last verdict holds.

    Args:
        nodes: the nodes of the cluster; None if they were not observed.
    """
    engine = deployment.spec.engine
    if engine.gpus == 0:
        return None
    if arguments := _unestimated(engine):
        message = f"Not estimated, because engine.args changes what the engine takes: {', '.join(arguments)}."
        return EngineFit(None, message)
    if model is None:
        message = (
            "The sizes of the model are unknown: they are read from a FineTuneJob on the same baseModel in this "
            "namespace, once it has prepared its data."
        )
        return None if is_judged(deployment) else EngineFit(None, message)
    setup = EngineSetup(
        gpus=engine.gpus,
        slots=adapter_slots(engine),
        rank=engine.max_rank,
        sharded=shards_adapters(engine),
        max_length=engine.max_model_length,
        utilization=_utilization(engine),
    )
    if engine.gpu_memory != AUTO:
        memory = memory_bytes(engine.gpu_memory)
        return judge_engine(model, setup, memory, memory)
    if nodes is None:
        return None
    sizes = _gpu_sizes(engine, nodes)
    return judge_engine(model, setup, min(sizes, default=None), max(sizes, default=None))


def engine_needs(deployment: AdapterDeployment, model: ModelReport | None) -> EngineNeeds:
    """Size of the model and requests of the engine; without GPUs, requests are left to the user."""
    engine = deployment.spec.engine
    if engine.gpus == 0:
        return EngineNeeds()
    size = int(weight_bytes(model)) if model else None
    fetched = parse_uri(deployment.spec.base_model.uri).scheme not in MOUNTED and engine.cache_volume is None
    adapters = ready_adapters(engine)
    return EngineNeeds(size, engine_requests(size, engine.gpus, adapters, engine.max_rank, fetched))


def fit_condition(fit: EngineFit) -> ConditionUpdate:
    """Condition ``Fits`` that states the verdict."""
    status: Literal["True", "False", "Unknown"] = (
        "Unknown" if fit.fits is None else "True" if fit.fits else "False"
    )
    reason = {True: Reason.FITS, False: Reason.DOES_NOT_FIT, None: Reason.NOT_ESTIMATED}[fit.fits]
    if fit.gpu_memory_unknown:
        reason = Reason.GPU_MEMORY_UNKNOWN
    return ConditionUpdate(ConditionType.FITS, status, reason, fit.message)


def _condition(deployment: AdapterDeployment, kind: ConditionType) -> Condition | None:
    return next((each for each in deployment.status.conditions if each.type == kind), None)


def _gpu_sizes(engine: Engine, nodes: tuple[Body, ...]) -> list[int]:
    """Bytes of the GPUs that the pods may get; empty if those of any node are unknown."""
    template = engine.template
    tolerations = [each.to_dict() for each in (template.tolerations or ())] if template else []
    selector = template.node_selector if template else None
    fitting = fitting_nodes(nodes, selector, tolerations, engine.gpus, engine.gpu_resource)
    sizes = [read_gpu(labels_of(node), engine.gpu_resource).memory for node in fitting]
    known = [size for size in sizes if size is not None]
    return known if len(known) == len(sizes) else []


def _unestimated(engine: Engine) -> list[str]:
    names = (argument.partition("=")[0].replace("_", "-") for argument in engine.args)
    return [name for name in names if name.startswith(_UNESTIMATED)]


def _utilization(engine: Engine) -> float:
    """Share of the GPU's memory that the engine takes, by its arguments."""
    words = [word for argument in engine.args for word in argument.replace("_", "-").split("=", 1)]
    if _UTILIZATION not in words[:-1]:
        return UTILIZATION
    try:
        return float(words[words.index(_UTILIZATION) + 1])
    except ValueError:
        return UTILIZATION
