"""FineTuneJob of a trial of a search."""

from math import floor
from typing import Any

from tunesmith.api.common import OwnerReference
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith_contract.shared_rules.trials import changed_settings

from .names import (
    API_VERSION,
    GROUP,
    STAGE_LABEL,
    Component,
    child_labels,
    controller_labels,
    owner_reference,
    queue_labels,
)
from .objects import KubernetesObject
from .trial_records import TrialProposal

#: Asks the FineTuneJob of a trial to stop; its value is the cause, for people.
STOP_ANNOTATION = f"{GROUP}/stop-trial"

#: What belongs to the search and not to a trial.
_OF_THE_SEARCH = frozenset({"search", "evaluation", "suspend", "budget"})


def trial_name(job: FineTuneJob, number: int) -> str:
    """Name of the FineTuneJob of a trial."""
    return f"{job.metadata.name}-trial-{number}"


def search_of(job: FineTuneJob) -> OwnerReference | None:
    """The FineTuneJob whose search this one is a trial of; None for any other job."""
    if job.metadata.labels.get(STAGE_LABEL) != Component.TRIAL:
        return None
    owners = (owner for owner in job.metadata.owner_references if owner.controller)
    return next((owner for owner in owners if owner.kind == "FineTuneJob"), None)


def build_trial_job(
    job: FineTuneJob, proposal: TrialProposal, every_steps: int | None = None
) -> KubernetesObject:
    """The FineTuneJob of a trial: the job itself with other values, without search and evaluation.

    Args:
        every_steps: interval of checkpoints; None leaves it as it is.
    """
    spec: dict[str, Any] = {
        key: value for key, value in job.spec.to_dict().items() if key not in _OF_THE_SEARCH
    }
    rank = job.spec.adapter.rank if job.spec.adapter else None
    hyperparameters, adapter = changed_settings(proposal.parameters, rank)
    spec["hyperparameters"] = spec["hyperparameters"] | hyperparameters
    if adapter:
        spec["adapter"] = spec["adapter"] | adapter
    if every_steps is not None:
        spec["checkpoints"] = spec["checkpoints"] | {"everySteps": every_steps}
    if budget := _budget(job, proposal):
        spec["budget"] = budget
    return {
        "apiVersion": API_VERSION,
        "kind": "FineTuneJob",
        "metadata": {
            "name": trial_name(job, proposal.number),
            "namespace": job.metadata.namespace,
            "labels": child_labels(job, Component.TRIAL, proposal.number)
            | queue_labels(job)
            | controller_labels(job),
            "ownerReferences": [owner_reference(job)],
        },
        "spec": spec,
    }


def _budget(job: FineTuneJob, proposal: TrialProposal) -> dict[str, str]:
    """Price of the job's budget, and the GPU hours that the trial may take."""
    price = job.spec.budget.to_dict() if job.spec.budget else {}
    if proposal.gpu_seconds is None:
        return price
    hours = max(1, floor(proposal.gpu_seconds / 3600 * 10**4)) / 10**4
    return price | {"gpuHours": f"{hours:.4f}"}
