"""Inputs of an AdapterDeployment's pods, kept in a ConfigMap so that a newer operator does not replace running pods."""

import json
from dataclasses import dataclass

from tunesmith_contract.base import canonical_json

from .names import ATTEMPT_LABEL, Component, Owner, child_metadata
from .objects import Body, KubernetesObject

KEY = "inputs.json"


@dataclass(frozen=True, slots=True)
class ServingInputs:
    """One choice of images.

    Attributes:
        number: counts the choices of this AdapterDeployment, from 1.
        requested: image in ``spec.engine``; empty for the operator's own image.
        image: image of engine and agent that was chosen.
    """

    number: int
    requested: str
    image: str


def build_serving_inputs(owner: Owner, inputs: ServingInputs) -> KubernetesObject:
    """Immutable ConfigMap of the inputs."""
    document = canonical_json({"requested": inputs.requested, "image": inputs.image}).decode()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, Component.INPUTS, inputs.number),
        "immutable": True,
        "data": {KEY: document},
    }


def read_serving_inputs(config_map: Body) -> ServingInputs:
    """The choice that such a ConfigMap holds."""
    document = json.loads(config_map["data"][KEY])
    number = int(config_map["metadata"]["labels"][ATTEMPT_LABEL])
    return ServingInputs(number=number, requested=document["requested"], image=document["image"])
