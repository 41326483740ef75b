"""Reward functions and weights for TRL's trainers, built from the configuration."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from tunesmith_contract.layout import reward_role
from tunesmith_contract.methods import ModelReward, Reward
from tunesmith_data.failures import DataError, UserError
from tunesmith_data.pod.storage import Storage
from tunesmith_data.rows.schema.formats import Row

from .json_schema import build_json_schema
from .reward_function import RewardFunction, Scorer
from .rule_rewards import build_exact, build_length, build_numeric, build_regex, last_number

#: Function that builds the scorer of a reward by a reward model.
ModelRewardBuilder = Callable[[str, ModelReward, Storage], Scorer]


def build_reward_functions(
    rewards: Sequence[Reward],
    special_ids: Collection[int],
    storage: Storage,
    role_of: Callable[[str], str] = reward_role,
    build_model: ModelRewardBuilder | None = None,
) -> tuple[list[RewardFunction], list[float]]:
    """TRL's ``reward_funcs`` and ``reward_weights``.

    Args:
        rewards: configuration of the rewards.
        special_ids: tokens that are no part of an answer, such as the one that ends it.
        storage: finds reward models, and the Secrets of endpoints.
        role_of: the role of the Secret that opens the endpoint of the reward of a name.
        build_model: makes scorers of reward models, which need torch; None where it is not installed.

    Raises:
        UserError: a reward cannot be built; the message names it and the correction.
    """
    _require_names(rewards)
    functions = [
        RewardFunction(reward.name, _build(reward, special_ids, storage, role_of(reward.name), build_model))
        for reward in rewards
    ]
    return functions, [reward.weight for reward in rewards]


def check_rewards(rewards: Sequence[Reward]) -> None:
    """Check rewards as far as possible without reading or loading anything.

    Raises:
        UserError: a pattern or a schema is wrong, or a name is given twice.
    """
    _require_names(rewards)
    for reward in rewards:
        if reward.regex is not None:
            build_regex(reward.name, reward.regex)
        if reward.json_schema is not None:
            build_json_schema(reward.name, reward.json_schema)


class RewardedRows:
    """Check that rows have the answers that rewards compare with."""

    def __init__(self, rewards: Sequence[Reward]) -> None:
        self._rewards = rewards
        self._rows = self._unanswered = self._unnumbered = 0

    def update(self, rows: Sequence[Row]) -> None:
        """Add the next rows.

        Raises:
            UserError: a row has tools.
        """
        if not self._rewards:
            return
        require_no_tools(rows)
        self._rows += len(rows)
        self._unanswered += sum(row.get("answer") is None for row in rows)
        if any(reward.numeric is not None for reward in self._rewards):
            self._unnumbered += sum(last_number(row.get("answer") or "") is None for row in rows)

    def require_answers(self) -> None:
        """Check that no row lacks an answer that a reward compares with.

        Raises:
            DataError: some rows lack one; the message has their number.
        """
        for reward in self._rewards:
            if reward.exact is not None:
                _require_answers(reward.name, self._unanswered, self._rows, 'an "answer"')
            if reward.numeric is not None:
                _require_answers(reward.name, self._unnumbered, self._rows, 'an "answer" with a number')


def require_no_tools(rows: Sequence[Row]) -> None:
    """TRL's online trainers render a prompt without its row's tools.

    Raises:
        UserError: a row has some.
    """
    if any(row.get("tools") for row in rows):
        message = (
            "rows with tools can't be learned from by the model's own answers: leave tools out, or use sft"
        )
        raise UserError("ToolsUnsupported", message)


def _build(
    reward: Reward,
    special_ids: Collection[int],
    storage: Storage,
    role: str,
    build_model: ModelRewardBuilder | None,
) -> Scorer:
    """The scorer of the member that is set; what asks others, or runs a user's code, is imported with it."""
    if reward.exact is not None:
        return build_exact(reward.exact)
    if reward.regex is not None:
        return build_regex(reward.name, reward.regex)
    if reward.json_schema is not None:
        return build_json_schema(reward.name, reward.json_schema)
    if reward.numeric is not None:
        return build_numeric(reward.numeric)
    if reward.length is not None:
        return build_length(reward.length, special_ids)
    if reward.model is not None:
        if build_model is None:
            message = f"reward {reward.name} asks a reward model, which needs torch: use the trainer image"
            raise UserError("RewardModelUnsupported", message)
        return build_model(reward.name, reward.model, storage)
    if reward.endpoint is not None:
        from .endpoint import build_endpoint

        return build_endpoint(reward.name, reward.endpoint, storage.secrets / role)
    assert reward.function is not None
    from .user_function import build_function

    return build_function(reward.name, reward.function)


def _require_names(rewards: Sequence[Reward]) -> None:
    """Check that the names of rewards are unique: means are logged by these names."""
    for name, count in Counter(reward.name for reward in rewards).items():
        if count == 1:
            continue
        raise UserError("RewardNames", f"{count} rewards are named {name}: give each a name of its own")


def _require_answers(name: str, missing: int, rows: int, needed: str) -> None:
    if missing:
        share = f"{missing:,} of {rows:,} rows have none"
        raise DataError("AnswersMissing", f"reward {name} needs {needed} in every row, and {share}: add them")
