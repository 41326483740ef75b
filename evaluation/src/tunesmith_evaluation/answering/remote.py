"""Answerers of sides whose models this pod does not load: behind endpoints, and stored by earlier runs."""

from pathlib import Path

from tunesmith_contract.layout import side_role
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace

from .endpoint import EndpointAnswerer
from .interface import Answerer
from .stored import StoredAnswerer

#: Folder of the journals of responses, beside the answers of other sides.
JOURNALS = "endpoints"


def remote_answerers(config: EvaluateConfig, storage: Storage, workspace: Workspace) -> list[Answerer]:
    """One answerer for each side with an endpoint or stored answers."""
    answerers: list[Answerer] = []
    for side in config.sides:
        if side.endpoint is not None:
            name = Path(JOURNALS, f"{side.name}.jsonl")
            own = workspace.own_answers / name
            others = [path for path in sorted(workspace.answers.glob(f"*/{name}")) if path != own]
            secret = storage.secrets / side_role(side.name)
            answerers.append(EndpointAnswerer(side, secret, own, workspace.push, others=others))
        elif side.answers is not None:
            answerers.append(StoredAnswerer(side, storage))
    return answerers
