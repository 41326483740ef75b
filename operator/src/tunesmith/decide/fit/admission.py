"""Decisions between data preparation and training: settings that fit into memory, and servability."""

from dataclasses import dataclass
from typing import Literal

from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.api.job_status import FineTuneJobStatus, MemoryEstimate, MemoryParts
from tunesmith.api.reasons import ConditionType, FineTuneJobReason
from tunesmith.api.values import AUTO
from tunesmith.decide.conditions import ConditionUpdate
from tunesmith_contract.report import Failure, RunReport, TrainingReport
from tunesmith_contract.run_config import TrainConfig

from .gpus import ReachableGPUs
from .memory_fit import GIB, Fit, fit_free_settings, judge_fit
from .servability import Servability, judge_servability

#: Maximum length of the message of a condition.
_MAX_MESSAGE = 2048


@dataclass(frozen=True, slots=True)
class Admission:
    """Verdicts on a training run.

    Attributes:
        run: the run with settings that fit, for those left to Auto.
        fit: the memory verdict; None without GPUs.
        servability: the verdict on serving the artifact.
    """

    run: TrainConfig
    fit: Fit | None
    servability: Servability

    @property
    def failure(self) -> Failure | None:
        """Failure that prevents training, if any."""
        return self.fit.failure if self.fit else None


def asks_for_nodes(spec: FineTuneJobSpec) -> bool:
    """True if nodes must be observed to determine the memory and speed of GPUs."""
    return spec.compute.gpus_per_node > 0


def admit(spec: FineTuneJobSpec, run: TrainConfig, report: RunReport, gpus: ReachableGPUs) -> Admission:
    """Verdicts on a run, after choosing the settings left to Auto.

    Args:
        run: the run with default settings.
        report: the report of a successful preparation.
        gpus: the GPUs that the run may get.
    """
    assert report.model is not None
    assert report.dataset is not None
    with_settings = fit_free_settings(report.model, report.dataset, run, gpus.memory, _free_settings(spec))
    return judge(with_settings, report, gpus)


def judge(run: TrainConfig, report: RunReport, gpus: ReachableGPUs) -> Admission:
    """Verdicts on a run whose settings are all chosen."""
    assert report.model is not None
    assert report.dataset is not None
    fit = judge_fit(report.model, report.dataset, run, gpus)
    return Admission(run, fit, judge_servability(report.model, run))


def admission_conditions(admission: Admission) -> list[ConditionUpdate]:
    """Condition ``Servable``, and ``Fits`` for runs on GPUs."""
    servable = admission.servability
    reason = FineTuneJobReason.NOT_SERVABLE if servable.servable is False else FineTuneJobReason.SERVABLE
    conditions = [_condition(ConditionType.SERVABLE, servable.servable, reason, servable.message)]
    if admission.fit is not None:
        fit = admission.fit
        conditions.append(_condition(ConditionType.FITS, fit.fits, fit.reason, fit.message))
    return conditions


def is_judged(status: FineTuneJobStatus) -> bool:
    """True if status has the verdicts already; they are not changed after training began."""
    return any(condition.type == ConditionType.SERVABLE for condition in status.conditions)


def is_servable(status: FineTuneJobStatus, admission: Admission | None) -> bool | None:
    """True if the artifact can be served as an adapter, by the current verdict or else the one in status."""
    if admission is not None:
        return admission.servability.servable
    statuses = {condition.type: condition.status for condition in status.conditions}
    return {"True": True, "False": False}.get(statuses.get(ConditionType.SERVABLE, ""))


def shown_memory(
    status: FineTuneJobStatus, admission: Admission | None, training: TrainingReport | None
) -> MemoryEstimate | None:
    """Memory estimate for status, with the measured peak once training has ended."""
    fit = admission.fit if admission else None
    estimate = memory_estimate(fit) if fit else status.memory_estimate
    return with_measured(estimate, training.peak_memory_bytes) if training else estimate


def shown_gpu_memory(status: FineTuneJobStatus, admission: Admission | None) -> str | None:
    """Memory of one GPU that the settings were chosen for."""
    if admission is None:
        return status.resolved.gpu_memory if status.resolved else None
    total = admission.fit.total if admission.fit else None
    return None if total is None else format_memory(total)


def memory_estimate(fit: Fit) -> MemoryEstimate | None:
    """Memory estimate for status."""
    if fit.memory is None:
        return None
    parts = {
        name: format_memory(size) for name, size in fit.memory.parts().items() if size or name == "weights"
    }
    return MemoryEstimate(
        per_gpu=format_memory(fit.memory.total),
        available=None if fit.available is None else format_memory(fit.available),
        parts=MemoryParts(**parts),
    )


def with_measured(estimate: MemoryEstimate | None, peak_bytes: int) -> MemoryEstimate | None:
    """Memory estimate with the measured peak."""
    if estimate is None or not peak_bytes:
        return estimate
    return estimate.model_copy(update={"measured": format_memory(peak_bytes)})


def format_memory(size: float) -> str:
    """Amount of memory as text, such as ``18.2Gi``."""
    return f"{size / GIB:.1f}Gi" if size >= GIB / 10 else f"{size / 2**20:.1f}Mi"


def _free_settings(spec: FineTuneJobSpec) -> frozenset[str]:
    written, compute = spec.hyperparameters, spec.compute
    free = {
        "microBatchSize": written.micro_batch_size == AUTO,
        "activationCheckpointing": compute.activation_checkpointing is None,
        "parallelism": compute.parallelism == AUTO,
    }
    return frozenset(name for name, is_free in free.items() if is_free)


def _condition(
    kind: ConditionType, holds: bool | None, reason: FineTuneJobReason, message: str
) -> ConditionUpdate:
    status: Literal["True", "False", "Unknown"] = "Unknown" if holds is None else "True" if holds else "False"
    return ConditionUpdate(kind, status, reason, message[:_MAX_MESSAGE])
