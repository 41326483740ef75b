"""Pod settings of the stages that generate and prepare rows: as in training, but for what chooses GPU nodes."""

from typing import Any

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.pod_template import PodTemplate

#: Fields of the training template that place pods on nodes with GPUs, or concern their end.
_TRAINING_ONLY = frozenset(
    {
        "affinity",
        "topology_spread_constraints",
        "runtime_class_name",
        "resource_claims",
        "termination_grace_period_seconds",
    }
)
#: Node labels of the training template that images and volumes depend on.
_SHARED_LABELS = (
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
)
#: Annotations by which Kueue places the pods of one Job near each other.
_TOPOLOGY_ANNOTATIONS = "kueue.x-k8s.io/podset-"


def data_template(job: FineTuneJob) -> PodTemplate:
    """Pod settings of the data stages: each as written for them, else as in the training template."""
    own = _written(job.spec.dataset.compute.template if job.spec.dataset.compute else None)
    return PodTemplate(**{**_shared(job.spec.compute.template), **own})


def avoids_gpu_nodes(job: FineTuneJob) -> bool:
    """True if nobody wrote which nodes the data stages run on."""
    own = _written(job.spec.dataset.compute.template if job.spec.dataset.compute else None)
    return not {"node_selector", "affinity"} & own.keys()


def _shared(training: PodTemplate | None) -> dict[str, Any]:
    shared = {name: value for name, value in _written(training).items() if name not in _TRAINING_ONLY}
    if selector := shared.pop("node_selector", None):
        kept = {label: selector[label] for label in _SHARED_LABELS if label in selector}
        shared |= {"node_selector": kept} if kept else {}
    if annotations := shared.pop("annotations", None):
        kept = {k: v for k, v in annotations.items() if not k.startswith(_TOPOLOGY_ANNOTATIONS)}
        shared |= {"annotations": kept} if kept else {}
    return shared


def _written(template: PodTemplate | None) -> dict[str, Any]:
    """Fields that are set, by their names in Python."""
    return {name: value for name, value in template or () if value is not None}
