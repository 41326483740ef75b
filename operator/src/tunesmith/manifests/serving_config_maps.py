"""ConfigMaps of an AdapterDeployment: desired state with rollout record, in one write; and the pods' inputs."""

import json
from dataclasses import dataclass

from tunesmith_contract.agent import DESIRED_FILE, DesiredState
from tunesmith_contract.base import canonical_json
from tunesmith_contract.layout import CA_FILE

from .names import ATTEMPT_LABEL, Component, Owner, child_metadata, child_name
from .objects import Body, KubernetesObject

RECORD_KEY = "rollout.json"
INPUTS_KEY = "inputs.json"


def desired_config_map_name(owner: Owner) -> str:
    """Name of the ConfigMap with the desired state."""
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
    """Desired state in such a ConfigMap."""
    return DesiredState.model_validate_json(config_map["data"][DESIRED_FILE])


@dataclass(frozen=True, slots=True)
class ServingInputs:
    """One choice of images, kept so that a newer operator does not replace running pods.

    Attributes:
        number: counts the choices of this AdapterDeployment, from 1.
        requested: image in ``spec.engine``; empty for the operator's own image.
        image: image of engine and agent that was chosen.
        on_gpus: it was chosen for pods with GPUs; None: by a release that did not tell them apart.
    """

    number: int
    requested: str
    image: str
    on_gpus: bool | None = None


def build_serving_inputs(owner: Owner, inputs: ServingInputs) -> KubernetesObject:
    """Immutable ConfigMap of the inputs."""
    values = {"requested": inputs.requested, "image": inputs.image, "onGpus": inputs.on_gpus}
    document = canonical_json({key: value for key, value in values.items() if value is not None}).decode()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, Component.INPUTS, inputs.number),
        "immutable": True,
        "data": {INPUTS_KEY: document},
    }


def read_serving_inputs(config_map: Body) -> ServingInputs:
    """The choice that such a ConfigMap holds."""
    document = json.loads(config_map["data"][INPUTS_KEY])
    number = int(config_map["metadata"]["labels"][ATTEMPT_LABEL])
    return ServingInputs(number, document["requested"], document["image"], document.get("onGpus"))
