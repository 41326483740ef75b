"""Parts of status that more than one kind has."""

from pydantic import Field

from tunesmith_contract.exit_codes import FailureCategory

from .common import StatusModel
from .values import Measured


class ArtifactRef(StatusModel):
    """Something made and kept, by address and digest."""

    uri: str = Field(max_length=512, description="Where it lies.")
    digest: str = Field(max_length=71, description="Digest of its manifest.")
    size_bytes: int = Field(0, ge=0, description="Size of its files in bytes.")


class Cost(StatusModel):
    """What it took."""

    gpu_seconds: Measured = Field(description="GPUs times seconds, over all attempts.")


class Failure(StatusModel):
    """Why the resource failed."""

    category: FailureCategory = Field(description="Whose fault it is, and so whether trying again can help.")
    message: str | None = Field(None, max_length=2048, description="What went wrong and what to do.")
    reason: str | None = Field(None, max_length=64, description="The check or error, in one PascalCase word.")
    rank: int | None = Field(None, ge=0, description="The process that failed first.")
    exit_code: int | None = Field(None, ge=0, le=255, description="Exit code of the pod.")
    log: str | None = Field(None, max_length=4096, description="The end of the failed pod's log.")
