"""Reward from a user's own Python function in the image."""

import asyncio
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from tunesmith_contract.methods import FunctionReward
from tunesmith_data.failures import StageError, UserError

from .reward_function import Batch, Scorer


def build_function(name: str, spec: FunctionReward) -> Scorer:
    """Scorer that calls ``package.module:function``, with the signature of TRL's reward functions.

    Raises:
        UserError: there is no such function, or, later, it fails.
    """
    function = _load(name, spec.name)

    def score(batch: Batch) -> Sequence[float | None]:
        try:
            result = function(**batch.arguments)
            scores = asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result
        except StageError:
            raise
        except Exception as error:
            raise UserError(
                "RewardFunction", f"reward {name}: {spec.name} failed with {type(error).__name__}: {error}"
            ) from error
        return scores.tolist() if hasattr(scores, "tolist") else scores  # type: ignore[no-any-return]

    return score


async def _awaited(result: Any) -> Any:
    return await result


def _load(name: str, path: str) -> Callable[..., Any]:
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        message = f"reward {name}: {path!r} names no function: write package.module:function"
        raise UserError("RewardFunction", message)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        message = (
            f"reward {name}: {module_name} can't be imported ({type(error).__name__}: {error}): "
            "install it in an image of your own, and name that image"
        )
        raise UserError("RewardFunction", message) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        message = f"reward {name}: {module_name} has no function {attribute}: write package.module:function"
        raise UserError("RewardFunction", message)
    loaded: Callable[..., Any] = function
    return loaded
