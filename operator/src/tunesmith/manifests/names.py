"""Names and labels of child objects."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

GROUP = "tunesmith.dev"
API_VERSION = f"{GROUP}/v1alpha1"
FIELD_MANAGER = "tunesmith"

OWNER_UID_LABEL = f"{GROUP}/owner-uid"
OWNER_NAME_LABEL = f"{GROUP}/owner-name"
STAGE_LABEL = f"{GROUP}/stage"
ATTEMPT_LABEL = f"{GROUP}/attempt"
ALIAS_LABEL = f"{GROUP}/alias"
#: Number of the pod set of an AdapterDeployment; pods of the first set lack it.
SET_LABEL = f"{GROUP}/set"
#: Container of a run's pods that runs the trainer image; others may stand beside it, also injected ones.
TRAINER_CONTAINER = "trainer"
#: Name of the installation that acts on a resource; one without a name acts on the resources without the label.
CONTROLLER_LABEL = f"{GROUP}/controller"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
COMPONENT_LABEL = "app.kubernetes.io/name"
#: Name of the claim for which all pods of a Job have to run on one node.
ONE_NODE_ANNOTATION = f"{GROUP}/one-node-for-claim"

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"

PLURALS = {"FineTuneJob": "finetunejobs", "EvalRun": "evalruns", "AdapterDeployment": "adapterdeployments"}


class Component(StrEnum):
    """Child objects that belong to no stage of a run, as the stage label names them."""

    INPUTS = "inputs"
    RUN = "run"
    EVALUATION = "evaluation"
    DESIRED = "desired"
    SERVING = "serving"
    VERSION = "version"
    ALIAS = "alias"
    HISTORY = "history"
    USAGE = "usage"
    TRIAL = "trial"
    TRIAL_RESULT = "result-trial"


class Metadata(Protocol):
    """Metadata of an owner."""

    @property
    def name(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


class Owner(Protocol):
    """A resource that has children."""

    @property
    def kind(self) -> str: ...
    @property
    def metadata(self) -> Metadata: ...


def child_name(owner: Owner, stage: str, attempt: int | None = None) -> str:
    """``<name>-<uid6>-<stage>[-<attempt>]``: the same for ever, whatever the images or the resolved values."""
    parts = [owner.metadata.name, owner.metadata.uid.replace("-", "")[:6], stage]
    if attempt is not None:
        parts.append(str(attempt))
    return "-".join(parts)


def child_labels(owner: Owner, stage: str, attempt: int | None = None) -> dict[str, str]:
    """Labels of a child and of its pods."""
    labels = {
        MANAGED_BY_LABEL: "tunesmith",
        COMPONENT_LABEL: str(stage),
        OWNER_NAME_LABEL: owner.metadata.name,
        OWNER_UID_LABEL: owner.metadata.uid,
        STAGE_LABEL: str(stage),
    }
    return labels if attempt is None else labels | {ATTEMPT_LABEL: str(attempt)}


def queue_labels(owner: Owner) -> dict[str, str]:
    """Kueue's labels of the owner, handed on to each child Job."""
    return {
        key: owner.metadata.labels[key]
        for key in (QUEUE_LABEL, PRIORITY_LABEL)
        if key in owner.metadata.labels
    }


def controller_labels(owner: Owner) -> dict[str, str]:
    """The label that gives the owner to an installation, handed on to each resource that it creates."""
    name = controller_of(owner.metadata.labels)
    return {CONTROLLER_LABEL: name} if name else {}


def controller_of(labels: Mapping[str, str]) -> str:
    """Name of the installation that acts on a resource with these labels; empty for the one without a name."""
    return labels.get(CONTROLLER_LABEL, "")


def children_selector(owner_uid: str) -> str:
    """The label selector that finds a resource's children; owner references confirm them."""
    return f"{OWNER_UID_LABEL}={owner_uid}"


def owner_reference(owner: Owner) -> dict[str, Any]:
    """The reference by which children are found and garbage-collected."""
    return {
        "apiVersion": API_VERSION,
        "kind": owner.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def child_metadata(owner: Owner, stage: str, attempt: int | None = None) -> dict[str, Any]:
    """Name, namespace, labels and owner of a child."""
    return {
        "name": child_name(owner, stage, attempt),
        "namespace": owner.metadata.namespace,
        "labels": child_labels(owner, stage, attempt),
        "ownerReferences": [owner_reference(owner)],
    }
