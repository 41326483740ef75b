"""Parts of status shared by several kinds."""

from pydantic import Field

from tunesmith_contract.exit_codes import FailureCategory

from .common import StatusModel
from .values import Measured


class ArtifactRef(StatusModel):
    """A stored result, by location and digest."""

    uri: str = Field(max_length=512, description="The location of the files.")
    digest: str = Field(max_length=71, description="The digest of the manifest, which lists all files.")
    size_bytes: int = Field(0, ge=0, description="The total size of the files in bytes.")


class Cost(StatusModel):
    """GPU time that was used."""

    gpu_seconds: Measured = Field(
        description="The number of GPUs times seconds, over all attempts. Attempts whose GPUs could not be used "
        "do not count."
    )


class Failure(StatusModel):
    """Cause of a failure."""

    category: FailureCategory = Field(
        description="The category of the failure. It determines whether another attempt can help."
    )
    message: str | None = Field(
        None, max_length=2048, description="The explanation of the failure, and what to do about it."
    )
    reason: str | None = Field(
        None, max_length=64, description="The check or error as a single CamelCase word."
    )
    rank: int | None = Field(None, ge=0, description="The rank of the process that failed first.")
    exit_code: int | None = Field(None, ge=0, le=255, description="The exit code of the pod.")
    log: str | None = Field(None, max_length=4096, description="The end of the log of the failed pod.")


class ContainerRequests(StatusModel):
    """Resources that are reserved for the container of each pod."""

    cpu: str | None = Field(None, max_length=32, description="The number of CPU cores.")
    memory: str | None = Field(None, max_length=32, description="The memory of the host.")
    ephemeral_storage: str | None = Field(
        None,
        max_length=32,
        description="The local disk, for models that are downloaded and for work files that are stored in a bucket.",
    )
