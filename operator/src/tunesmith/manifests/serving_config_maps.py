"""ConfigMap of an AdapterDeployment: the desired state of its pods and the rollout record, in one write."""

from tunesmith_contract.agent import DESIRED_FILE, DesiredState
from tunesmith_contract.layout import CA_FILE

from .names import Component, Owner, child_metadata, child_name
from .objects import Body, KubernetesObject

RECORD_KEY = "rollout.json"


def desired_config_map_name(owner: Owner) -> str:
    """The name of the object."""
    return child_name(owner, Component.DESIRED)


def build_desired_config_map(
    owner: Owner, desired: DesiredState, record: str, ca_bundle: str
) -> KubernetesObject:
    """The desired state and the operator's authority for the pods, the record for the operator alone."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, Component.DESIRED),
        "data": {DESIRED_FILE: desired.to_json(), CA_FILE: ca_bundle, RECORD_KEY: record},
    }


def read_desired(config_map: Body) -> DesiredState:
    """The desired state in it."""
    return DesiredState.model_validate_json(config_map["data"][DESIRED_FILE])
