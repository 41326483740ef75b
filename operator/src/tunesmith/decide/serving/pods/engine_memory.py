"""Condition ``Fits`` of an AdapterDeployment: GPUs that the engine can use, and the memory that it needs of them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from tunesmith.api.adapterdeployment import AdapterDeployment, Engine
from tunesmith.api.common import Condition
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.reasons import ConditionType
from tunesmith.api.values import AUTO
from tunesmith.decide.conditions import ConditionUpdate
from tunesmith.decide.fit.engine_fit import UTILIZATION, EngineFit, EngineSetup, judge_engine, weight_bytes
from tunesmith.decide.fit.gpus import ReachableGPUs
from tunesmith.decide.fit.reachable_gpus import GPURequest, find_reachable_gpus
from tunesmith.decide.fit.requests import engine_requests
from tunesmith.manifests.engine_container import EngineNeeds, adapter_slots, ready_adapters, shards_adapters
from tunesmith.manifests.environment import Environment, GPUNeeds
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
#: Reasons for which no pod is started: nodes with other GPUs may join the cluster.
REFUSALS = frozenset({Reason.DOES_NOT_FIT, Reason.DRIVER_TOO_OLD, Reason.UNSUPPORTED_GPU})
_JUDGED = frozenset({Reason.FITS, Reason.DOES_NOT_FIT, Reason.GPU_MEMORY_UNKNOWN})


def find_base_model(records: Iterable[Body]) -> ModelReport | None:
    """Sizes of the base model, from the records of FineTuneJobs that prepared data for it."""
    parsed = (parse_result(record) for record in records)
    reports = (record.report for record in parsed if record and record.stage is Stage.PREPARE)
    return next((report.model for report in reports if report and report.model), None)


def asks_for_nodes(deployment: AdapterDeployment, model: ModelReport | None) -> bool:
    """True if nodes must be observed: for each generation of the spec, once, and again while no pod is started.

    And once more when the sizes of the model have become known.
    """
    engine = deployment.spec.engine
    if engine.gpus == 0 or engine.gpu_memory != AUTO:
        return False
    estimated = is_judged(deployment) if model and not _unestimated(engine) else _is_said(deployment)
    return not estimated or is_refused(deployment)


def is_judged(deployment: AdapterDeployment) -> bool:
    """True if ``Fits`` compares the sizes of the model with GPUs for this generation of the spec."""
    fits = _condition(deployment, ConditionType.FITS)
    return fits is not None and _is_said(deployment) and fits.reason in _JUDGED


def is_refused(deployment: AdapterDeployment) -> bool:
    """True if the last verdict was that no GPU can be used, or that the weights exceed every GPU."""
    stalled = _condition(deployment, ConditionType.STALLED)
    return stalled is not None and stalled.status == "True" and stalled.reason in REFUSALS


def judge_memory(
    deployment: AdapterDeployment,
    model: ModelReport | None,
    nodes: tuple[Body, ...] | None,
    needs: GPUNeeds,
    environment: Environment,
) -> EngineFit | None:
    """Verdict on the engine's GPUs and their memory; None without GPUs, or where the last verdict holds.

    Args:
        nodes: the nodes of the cluster; None if they were not observed.
        needs: what the image of the pods needs.
        environment: settings of the installation.
    """
    engine = deployment.spec.engine
    if engine.gpus == 0 or (engine.gpu_memory == AUTO and nodes is None):
        return None
    resource = environment.gpus(engine.gpus, engine.gpu_resource, engine.template).resource
    request = GPURequest(engine.gpus, resource, engine.gpu_memory, engine.template, "engine")
    gpus = find_reachable_gpus(request, nodes or (), needs, environment.gpu_tolerations)
    if gpus.obstacle is not None:
        message = f"No pod is started. {gpus.obstacle.message}"
        return EngineFit(False, Reason(gpus.obstacle.reason), message, impossible=True)
    fit = _judge_model(deployment, model, gpus)
    if fit is None or not gpus.left_out:
        return fit
    return replace(fit, message=f"{fit.message} {gpus.left_out}")


def _judge_model(
    deployment: AdapterDeployment, model: ModelReport | None, gpus: ReachableGPUs
) -> EngineFit | None:
    """Memory verdict on the model; None where the last verdict holds."""
    engine = deployment.spec.engine
    if arguments := _unestimated(engine):
        message = f"Not estimated, because engine.args changes what the engine takes: {', '.join(arguments)}."
        return EngineFit(None, Reason.NOT_ESTIMATED, message)
    if model is None:
        message = (
            "The sizes of the model are unknown: they are read from a FineTuneJob on the same baseModel in this "
            "namespace, once it has prepared its data."
        )
        return None if is_judged(deployment) else EngineFit(None, Reason.NOT_ESTIMATED, message)
    setup = EngineSetup(
        gpus=engine.gpus,
        slots=adapter_slots(engine),
        rank=engine.max_rank,
        sharded=shards_adapters(engine),
        max_length=engine.max_model_length,
        utilization=_utilization(engine),
    )
    fit = judge_engine(model, setup, gpus)
    shared = gpus.note if gpus.memory is not None else ""
    return replace(fit, message=f"{fit.message} {shared}".rstrip())


def engine_needs(deployment: AdapterDeployment, model: ModelReport | None) -> EngineNeeds:
    """Size of the model, forms of its answers, and requests of the engine.

    Without GPUs, requests are left to the user.
    """
    engine = deployment.spec.engine
    forms = (model.tools, model.thinking) if model else (None, None)
    if engine.gpus == 0:
        return EngineNeeds(None, {}, *forms)
    size = int(weight_bytes(model)) if model else None
    fetched = parse_uri(deployment.spec.base_model.uri).scheme not in MOUNTED and engine.cache_volume is None
    adapters = ready_adapters(engine)
    return EngineNeeds(size, engine_requests(size, engine.gpus, adapters, engine.max_rank, fetched), *forms)


def fit_condition(fit: EngineFit) -> ConditionUpdate:
    """Condition ``Fits`` that states the verdict."""
    status: Literal["True", "False", "Unknown"] = (
        "Unknown" if fit.fits is None else "True" if fit.fits else "False"
    )
    return ConditionUpdate(ConditionType.FITS, status, fit.reason, fit.message)


def _condition(deployment: AdapterDeployment, kind: ConditionType) -> Condition | None:
    return next((each for each in deployment.status.conditions if each.type == kind), None)


def _is_said(deployment: AdapterDeployment) -> bool:
    """True if there is a verdict on this generation of the spec, even if it compares nothing."""
    fits = _condition(deployment, ConditionType.FITS)
    return fits is not None and fits.observed_generation == deployment.metadata.generation


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
