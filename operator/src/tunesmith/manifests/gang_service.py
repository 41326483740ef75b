"""Headless Service by which the pods of one attempt find each other."""

from tunesmith_contract.stages import Stage

from .names import Owner, child_metadata, child_name
from .objects import KubernetesObject

#: Where the first process listens: torchrun's own choice.
MASTER_PORT = 29500

_JOB_NAME_LABEL = "batch.kubernetes.io/job-name"


def gang_variables(name: str, nodes: int) -> dict[str, str]:
    """torchrun's variables for the pods of this Job; each knows its own place from ``JOB_COMPLETION_INDEX``."""
    if nodes == 1:
        return {}
    return {
        "PET_NNODES": str(nodes),
        "PET_MASTER_ADDR": f"{name}-0.{name}",
        "PET_MASTER_PORT": str(MASTER_PORT),
    }


def build_gang_service(owner: Owner, stage: Stage, attempt: int) -> KubernetesObject:
    """The Service of one attempt, named as its Job.

    A name of its own for each attempt: a pod of an earlier one can't join. Pods are found before they are ready, which
    they never are.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(owner, stage, attempt),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {_JOB_NAME_LABEL: child_name(owner, stage, attempt)},
            "ports": [{"name": "torch", "port": MASTER_PORT}],
        },
    }
