"""Method and rewards of a spec as the trainer reads them.

Contract models have the fields of the API models, so they are validated from the spec's plain data: a new setting is
written in the API and the contract alone. What differs between the two is replaced here.
"""

from collections.abc import Mapping
from typing import Any

from tunesmith.api.common import StrictModel
from tunesmith.api.filter_rewards import FilterReward
from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.api.rewards import ModelReward, Reward
from tunesmith_contract import methods as contract
from tunesmith_contract.search import ParameterName

from .defaults import resolve_packing
from .referenced_jobs import ReferencedArtifact


def plain_data(part: StrictModel) -> dict[str, Any]:
    """A part of a spec as plain data, without references to Secrets: pods find these by their role."""
    data: dict[str, Any] = _without_secrets(part.to_dict())
    return data


def resolve_method(
    spec: FineTuneJobSpec, artifacts: Mapping[str, ReferencedArtifact] | None = None
) -> contract.Method:
    """The method as the trainer reads it.

    Args:
        artifacts: artifacts of the FineTuneJobs that the spec names.

    Raises:
        KeyError: a reward names a job that is not among ``artifacts``.
    """
    method = spec.method
    document = plain_data(method)
    member = document[method.key]
    if method.sft or method.pretraining:
        compute = spec.compute
        searched = spec.search and any(
            item.name is ParameterName.BATCH_SIZE for item in spec.search.parameters
        )
        # Searched batch sizes are numbers of rows, as written ones are.
        batch_size = 1 if searched else spec.hyperparameters.batch_size
        member["packing"] = resolve_packing(method.packing, batch_size, compute.gpus_per_node)
    if method.rewards:
        member["rewards"] = [reward_document(reward, artifacts) for reward in method.rewards]
    return contract.Method.model_validate(document)


def reward_document(
    reward: FilterReward, artifacts: Mapping[str, ReferencedArtifact] | None = None
) -> dict[str, Any]:
    """A reward as plain data of the contract.

    Raises:
        KeyError: it names a job that is not among ``artifacts``.
    """
    document = plain_data(reward)
    if reward.json_schema:
        document["jsonSchema"] = {"jsonSchema": reward.json_schema.text}
    if isinstance(reward, Reward) and reward.model:
        document["model"] = _resolve_reward_model(reward.model, artifacts or {}).to_dict()
    return document


def _resolve_reward_model(
    model: ModelReward, artifacts: Mapping[str, ReferencedArtifact]
) -> contract.ModelReward:
    if model.fine_tune_job_ref is not None:
        artifact = artifacts[model.fine_tune_job_ref.name]
        base_model = None if artifact.whole_model else artifact.base_model
        return contract.ModelReward(uri=artifact.uri, digest=artifact.digest, base_model=base_model)
    assert model.uri is not None
    base_model = model.base_model.uri if model.base_model else None
    return contract.ModelReward(uri=model.uri, digest=model.digest, base_model=base_model)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items() if key != "secretRef"}
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value
