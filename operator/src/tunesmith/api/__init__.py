"""API of Tunesmith: the three custom resources with their validation rules, phases and reasons.

``FineTuneJob.parse(body)`` reads an object of the API server; ``crds/*.yaml`` are generated from the same models.
"""

from .adapterdeployment import AdapterDeployment, AdapterDeploymentSpec, AdapterDeploymentStatus
from .common import GROUP, VERSION, Condition, InvalidResource, ObjectMeta, Resource
from .crd import KINDS, build_crd
from .evalrun import EvalRun, EvalRunSpec, EvalRunStatus
from .finetunejob import FineTuneJob, FineTuneJobSpec
from .job_status import FineTuneJobStatus
from .reasons import (
    AdapterDeploymentReason,
    AdapterPhase,
    ConditionType,
    EvalRunPhase,
    EvalRunReason,
    FineTuneJobPhase,
    FineTuneJobReason,
    RunReason,
)
from .values import duration_seconds, format_duration

__all__ = [
    "GROUP",
    "KINDS",
    "VERSION",
    "AdapterDeployment",
    "AdapterDeploymentReason",
    "AdapterDeploymentSpec",
    "AdapterDeploymentStatus",
    "AdapterPhase",
    "Condition",
    "ConditionType",
    "EvalRun",
    "EvalRunPhase",
    "EvalRunReason",
    "EvalRunSpec",
    "EvalRunStatus",
    "FineTuneJob",
    "FineTuneJobPhase",
    "FineTuneJobReason",
    "FineTuneJobSpec",
    "FineTuneJobStatus",
    "InvalidResource",
    "ObjectMeta",
    "Resource",
    "RunReason",
    "build_crd",
    "duration_seconds",
    "format_duration",
]
