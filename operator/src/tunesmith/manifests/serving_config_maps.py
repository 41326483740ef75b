"""ConfigMaps of an AdapterDeployment: mounted state, records of its aliases, history of its name, inputs of pods."""

import json
from dataclasses import dataclass

from tunesmith_contract.agent import DESIRED_FILE, STATE_FILE, DesiredState
from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.layout import CA_FILE

from .names import ALIAS_LABEL, ATTEMPT_LABEL, STAGE_LABEL, Component, Owner, child_metadata, child_name
from .objects import Body, KubernetesObject

#: Record of all aliases in the form of the first release, beside the mounted state.
FIRST_RECORD_KEY = "rollout.json"
RECORD_KEY = "record.json"
#: Digest of the record's text.
RECORD_DIGEST_KEY = "record.sha256"
HISTORY_KEY = "history.json"
USAGE_KEY = "usage.json"
INPUTS_KEY = "inputs.json"


def desired_config_map_name(owner: Owner) -> str:
    """Name of the ConfigMap with the desired state."""
    return child_name(owner, Component.DESIRED)


def build_desired_config_map(
    owner: Owner, desired: DesiredState, first_record: str, ca_bundle: str
) -> KubernetesObject:
    """The desired state and the operator's authority for the pods.

    Args:
        first_record: the record in the form of the first release, for an operator that is rolled back to it.
    """
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, Component.DESIRED),
        "data": {CA_FILE: ca_bundle, FIRST_RECORD_KEY: first_record},
    }
    return with_desired(manifest, desired)


def with_desired(config_map: KubernetesObject, desired: DesiredState) -> KubernetesObject:
    """The ConfigMap with this state, in the form of the first release and whole."""
    files = {DESIRED_FILE: desired.for_features(()).to_json(), STATE_FILE: desired.to_json()}
    return {**config_map, "data": {**config_map["data"], **files}}


def read_first_desired(config_map: Body) -> DesiredState:
    """Desired state in the form of the first release.

    Raises:
        KeyError, ValueError: the ConfigMap holds none.
    """
    return DesiredState.model_validate_json(config_map["data"][DESIRED_FILE])


def read_desired(config_map: Body) -> DesiredState | None:
    """The whole desired state; None if an operator of the first release wrote the ConfigMap last.

    Raises:
        KeyError, ValueError: the ConfigMap holds none.
    """
    first = read_first_desired(config_map)
    text = config_map["data"].get(STATE_FILE)
    if text is None:
        return None
    state = DesiredState.model_validate_json(text)
    return state if state.generation == first.generation else None


def build_alias_record(owner: Owner, alias: str, record: str) -> KubernetesObject:
    """The record of one alias."""
    metadata = child_metadata(owner, Component.ALIAS)
    metadata["name"] = f"{metadata['name']}-{alias}"
    metadata["labels"][ALIAS_LABEL] = alias
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": build_record_data(record)}


def build_record_data(record: str) -> dict[str, str]:
    """A record with its digest, by which one that somebody edits is known."""
    return {RECORD_KEY: record, RECORD_DIGEST_KEY: sha256_digest(record.encode())}


def read_record_text(config_map: Body) -> str:
    """Text of a record, as the operator wrote it.

    Raises:
        KeyError: the ConfigMap holds none.
        ValueError: somebody else changed it.
    """
    data = config_map["data"]
    text: str = data[RECORD_KEY]
    if data[RECORD_DIGEST_KEY] != sha256_digest(text.encode()):
        raise ValueError(f"the record in {config_map['metadata']['name']} was edited")
    return text


def alias_of(config_map: Body) -> str | None:
    """The alias whose record this ConfigMap is for; None for any other ConfigMap."""
    labels = config_map["metadata"].get("labels") or {}
    alias: str | None = labels.get(ALIAS_LABEL)
    return alias if labels.get(STAGE_LABEL) == Component.ALIAS else None


def history_name(name: str) -> str:
    """Name of the ConfigMap with the history of all AdapterDeployments of this name."""
    return f"{name}-rollout-history"


def build_history(owner: Owner, history: str) -> KubernetesObject:
    """The history of a name. It has no owner: it stays when the resource is deleted."""
    metadata = child_metadata(owner, Component.HISTORY)
    del metadata["ownerReferences"]
    metadata["name"] = history_name(owner.metadata.name)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {HISTORY_KEY: history}}


def is_history(config_map: Body) -> bool:
    """True for a ConfigMap with the history of a name."""
    labels = config_map["metadata"].get("labels") or {}
    return bool(labels.get(STAGE_LABEL) == Component.HISTORY)


def usage_config_map_name(owner: Owner) -> str:
    """Name of the ConfigMap with what clients have used."""
    return child_name(owner, Component.USAGE)


def build_usage(owner: Owner, usage: str) -> KubernetesObject:
    """Tokens that the clients of all pods have used."""
    metadata = child_metadata(owner, Component.USAGE)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {USAGE_KEY: usage}}


@dataclass(frozen=True, slots=True)
class ServingInputs:
    """One choice of images, kept so that a newer operator does not replace running pods.

    Attributes:
        number: counts the choices of this AdapterDeployment, from 1.
        requested: image in ``spec.engine``; empty for the operator's own image.
        image: image of engine and agent that was chosen.
        on_gpus: it was chosen for pods with GPUs; None: by a release that did not tell them apart.
        has_monitoring_port: the image's agent has a port of its own for probes and metrics; those of the first releases
            have not.
        asks_for_keys: the image's agent can ask clients for keys; those of the first releases can't.
        has_engine_socket: agent and engine talk over a socket in the file system; in earlier releases, over a port.
    """

    number: int
    requested: str
    image: str
    on_gpus: bool | None = None
    has_monitoring_port: bool = True
    asks_for_keys: bool = True
    has_engine_socket: bool = True


def build_serving_inputs(owner: Owner, inputs: ServingInputs) -> KubernetesObject:
    """Immutable ConfigMap of the inputs."""
    values = {
        "requested": inputs.requested,
        "image": inputs.image,
        "onGpus": inputs.on_gpus,
        "monitoringPort": inputs.has_monitoring_port,
        "clientKeys": inputs.asks_for_keys,
        "engineSocket": inputs.has_engine_socket,
    }
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
    return ServingInputs(
        number,
        document["requested"],
        document["image"],
        document.get("onGpus"),
        document.get("monitoringPort", False),
        document.get("clientKeys", False),
        document.get("engineSocket", False),
    )
