"""Answerers of sides whose models this pod does not load: behind endpoints, and stored by earlier runs."""

from collections.abc import Sequence
from pathlib import Path

from tunesmith_contract.layout import side_role
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_evaluation.items.requests import Request

from .endpoint import EndpointAnswerer
from .interface import Answerer
from .stored import StoredAnswerer

#: Folder of the journals of responses, beside the answers of other sides.
JOURNALS = "endpoints"


def remote_answerers(
    config: EvaluateConfig, storage: Storage, workspace: Workspace, requests: Sequence[Request]
) -> list[Answerer]:
    """One answerer for each side with an endpoint or stored answers.

    Args:
        config: configuration of the run.
        storage: access to Secrets and stored answers.
        workspace: place of the journals.
        requests: requests of all pods, among which each side's budget is divided.
    """
    answerers: list[Answerer] = []
    for side in config.sides:
        if side.endpoint is not None:
            name = Path(JOURNALS, f"{side.name}.jsonl")
            own = workspace.own_answers / name
            others = [path for path in sorted(workspace.answers.glob(f"*/{name}")) if path != own]
            secret = storage.secrets / side_role(side.name)
            asked = [request for request in requests if request.side == side.name]
            share = sum(workspace.share.holds(request.item) for request in asked)
            limits = side.endpoint.with_part(share, max(1, len(asked))).call_budget
            answerers.append(
                EndpointAnswerer(side, secret, own, workspace.push, others=others, limits=limits)
            )
        elif side.answers is not None:
            answerers.append(StoredAnswerer(side, storage))
    return answerers
