"""Reward from an HTTP endpoint: one request for each batch of answers."""

from collections.abc import Sequence
from pathlib import Path

from tunesmith_contract.methods import EndpointReward
from tunesmith_data.endpoints.client import Endpoint, RequestRefused
from tunesmith_data.failures import UserError

from .reward_function import Batch, Scorer


def build_endpoint(name: str, spec: EndpointReward, secret: Path) -> Scorer:
    """Scorer that posts ``{"prompts", "completions", "answers"}`` and gets ``{"rewards": [...]}``.

    Args:
        secret: the folder of the mounted Secret that opens it.
    """
    title = f"the endpoint of reward {name}"
    endpoint = Endpoint(spec.url, title, secret, spec.timeout_seconds)

    def score(batch: Batch) -> Sequence[float]:
        body = {
            "prompts": list(batch.prompts),
            "completions": list(batch.texts),
            "answers": list(batch.answers),
        }
        try:
            answer = endpoint.post(body)
        except RequestRefused as error:
            message = f'{title} refuses {{"prompts", "completions", "answers"}}: {error.message}'
            raise UserError("EndpointRefused", message) from error
        rewards = answer.get("rewards") if isinstance(answer, dict) else None
        if not isinstance(rewards, list) or any(
            not isinstance(reward, int | float) or isinstance(reward, bool) for reward in rewards
        ):
            raise UserError("EndpointAnswer", f'{title} gives no {{"rewards": [numbers]}}: let it answer so')
        return rewards

    return score
