"""The ``inputs`` snapshot: all that was decided at first sight, so that no later change reaches a run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tunesmith_contract.layout import CA_FILE, RUN_FILE
from tunesmith_contract.run_config import (
    AdapterSource,
    EvaluateConfig,
    GenerateConfig,
    PrepareConfig,
    parse_run_config,
)

from .names import Owner, child_metadata, child_name
from .objects import Body, KubernetesObject

STAGE = "inputs"
SPEC_KEY = "spec.json"
IMAGE_KEY = "image"
STARTED_KEY = "startTime"
TOKEN_SECRET_KEY = "tokenSecret"
SECRETS_KEY = "secrets.json"
INITIAL_KEY = "initial.json"
GENERATE_KEY = "generate.json"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run started from.

    Attributes:
        spec: JSON of the resource's spec at first sight.
        image: the trainer image.
        started: when the operator first acted, UTC, whole seconds.
        config: ``run.json`` of the first stage, or of the one behind ``generate``.
        token_secret: the Secret whose key ``token`` opens the hub; empty for none.
        ca_bundle: PEM of the operator's authority.
        secrets: Secrets by the role in which pods find them.
        initial: the earlier artefact that training starts from.
        generate: ``run.json`` of the stage in which a teacher makes rows; None where there is none.
    """

    spec: str
    image: str
    started: datetime
    config: PrepareConfig | EvaluateConfig
    ca_bundle: str
    token_secret: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)
    initial: AdapterSource | None = None
    generate: GenerateConfig | None = None


def inputs_name(owner: Owner) -> str:
    """The snapshot's name."""
    return child_name(owner, STAGE)


def build_inputs_config_map(owner: Owner, inputs: Inputs) -> KubernetesObject:
    """The snapshot as an immutable ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, STAGE),
        "immutable": True,
        "data": {
            SPEC_KEY: inputs.spec,
            IMAGE_KEY: inputs.image,
            STARTED_KEY: inputs.started.isoformat(),
            RUN_FILE: inputs.config.to_json(),
            TOKEN_SECRET_KEY: inputs.token_secret,
            CA_FILE: inputs.ca_bundle,
            SECRETS_KEY: json.dumps(dict(inputs.secrets), sort_keys=True),
            **({INITIAL_KEY: inputs.initial.to_json()} if inputs.initial else {}),
            **({GENERATE_KEY: inputs.generate.to_json()} if inputs.generate else {}),
        },
    }


def parse_inputs(manifest: Body) -> Inputs:
    """The snapshot back from its ConfigMap.

    Raises:
        KeyError, ValueError: it is not a snapshot of this release's or the last one's.
    """
    data = manifest["data"]
    config = parse_run_config(data[RUN_FILE])
    if not isinstance(config, PrepareConfig | EvaluateConfig):
        raise ValueError(f"{manifest['metadata']['name']} holds the configuration of another stage")
    return Inputs(
        spec=data[SPEC_KEY],
        image=data[IMAGE_KEY],
        started=datetime.fromisoformat(data[STARTED_KEY]).astimezone(UTC),
        config=config,
        ca_bundle=data.get(CA_FILE, ""),
        token_secret=data.get(TOKEN_SECRET_KEY, ""),
        secrets=json.loads(data.get(SECRETS_KEY, "{}")),
        initial=AdapterSource.model_validate_json(data[INITIAL_KEY]) if INITIAL_KEY in data else None,
        generate=GenerateConfig.model_validate_json(data[GENERATE_KEY]) if GENERATE_KEY in data else None,
    )
