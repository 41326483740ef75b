"""Actions that people ask for in the annotation ``tunesmith.dev/action`` of an AdapterDeployment."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from .adapterdeployment import AliasName
from .common import StrictModel

ACTION_ANNOTATION = "tunesmith.dev/action"
#: Actions in one annotation, and of these for one adapter.
MAX_ANNOTATED = 64
MAX_ANNOTATED_EACH = 10

_ONE_LINE = r"^[^\x00-\x1f\x7f]*$"


class Verb(StrEnum):
    """Kind of an action."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    RETRY = "retry"
    UNDO = "undo"


class Action(StrictModel):
    """One action on the rollout of one alias.

    Attributes:
        id: a name that the caller chooses; an action whose ID is known for the alias is not done again.
        digest: of the version that is meant, whole or its first 12 hex digits or more.
        to_version: number of the version to go back to.
        by: the person who asks.
    """

    id: Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._:]*[A-Za-z0-9])?$")]
    adapter: AliasName
    verb: Verb
    digest: Annotated[str, Field(pattern=r"^(sha256:)?[0-9a-f]{12,64}$")] | None = None
    to_version: Annotated[int, Field(ge=1, strict=True)] | None = None
    by: Annotated[str, Field(max_length=128, pattern=_ONE_LINE)] = ""
    reason: Annotated[str, Field(max_length=256, pattern=_ONE_LINE)] = ""

    @model_validator(mode="after")
    def _check_version(self) -> Self:
        if self.to_version is not None and self.verb is not Verb.UNDO:
            raise ValueError("toVersion belongs to the verb undo: leave it out")
        if self.to_version is not None and self.digest is not None:
            raise ValueError("write toVersion or digest, not both")
        return self

    def means(self, digest: str) -> bool:
        """True if the action names this digest, or none."""
        return self.digest is None or digest.removeprefix("sha256:").startswith(
            self.digest.removeprefix("sha256:")
        )
