"""The ``run`` snapshot: what training is told once the data is prepared and every ``Auto`` is a number."""

from tunesmith_contract.layout import RUN_FILE
from tunesmith_contract.run_config import TrainConfig, parse_run_config

from .names import Owner, child_metadata, child_name
from .objects import Body, KubernetesObject

STAGE = "run"


def run_name(owner: Owner) -> str:
    """The snapshot's name."""
    return child_name(owner, STAGE)


def build_run_config_map(owner: Owner, config: TrainConfig) -> KubernetesObject:
    """The snapshot as an immutable ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, STAGE),
        "immutable": True,
        "data": {RUN_FILE: config.to_json()},
    }


def parse_run(manifest: Body) -> TrainConfig:
    """The snapshot back from its ConfigMap.

    Raises:
        KeyError, ValueError: it is not a snapshot of this release's or the last one's.
    """
    config = parse_run_config(manifest["data"][RUN_FILE])
    if not isinstance(config, TrainConfig):
        raise ValueError(f"{manifest['metadata']['name']} holds the configuration of another stage")
    return config
