"""Output, checkpoints, experiment trackers and budget of a FineTuneJob."""

from typing import Annotated

from pydantic import Field

from tunesmith_contract.run_config import OutputFormat

from .common import SecretName, StrictModel
from .rules import Rule
from .sources import STORE_KEYS
from .uris import OutputUri, WorkspaceUri
from .values import Currency, PositiveDecimal


class Checkpoints(StrictModel):
    """Checkpoint schedule of training."""

    every_steps: int = Field(
        100, ge=1, le=1_000_000, description="The number of optimizer steps between two checkpoints."
    )
    keep: int = Field(
        3, ge=1, le=100, description="The number of latest checkpoints that are kept during training."
    )
    retain: bool = Field(
        False,
        description="If true, the checkpoints that were kept stay when training has succeeded, so that EvalRuns can "
        "compare them (checkpointStep). They take as much space as in training.",
    )


class Output(StrictModel):
    """The storage of the artifact, and its formats."""

    uri: OutputUri = Field(
        description="The location of artifacts: pvc://artifacts/team-a for a PersistentVolumeClaim that the pods "
        "can write to, with or without a folder; or s3://bucket/folder, gs://bucket/folder, az://container/folder, "
        "oci://registry/repository, hf://org/repo. Each artifact is stored below it by digest. "
        "Artifacts are never deleted by the operator."
    )
    formats: Annotated[tuple[OutputFormat, ...], Field(max_length=len(OutputFormat))] = Field(
        (OutputFormat.ADAPTER,),
        description="The formats of the result. Adapter: the trained adapter, or the complete model if no adapter"
        " is trained; it is always written, even if not listed. Merged: the base model with the "
        "adapter merged into it. GGUF: one GGUF file with an Ollama Modelfile.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


class Workspace(StrictModel):
    """The storage of work files: prepared data and checkpoints.

    When training has succeeded, all of them are deleted but the prepared rows, by which evaluations find leaked items.
    """

    uri: WorkspaceUri = Field(
        description="The location of work files: pvc://claim/folder, s3://bucket/folder, gs://bucket/folder or "
        "az://container/folder. "
        "For training on several nodes a bucket, or a claim that all nodes can write to (ReadWriteMany)."
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


class Budget(StrictModel):
    """Limit and price of GPU time. GPU time counts from the start of the training pods to their end."""

    rules = (
        Rule(
            "has(self.gpuHours) || has(self.pricePerGpuHour)",
            'budget needs a member: write gpuHours for a limit, such as "10", or pricePerGpuHour to see '
            "the cost, or both.",
        ),
        Rule(
            "has(self.pricePerGpuHour) == has(self.currency)",
            'Set pricePerGpuHour and currency together: pricePerGpuHour: "2.50" and currency: EUR.',
        ),
    )

    gpu_hours: PositiveDecimal | None = Field(
        None,
        description='The maximum number of GPU hours over all attempts, such as "10". When it is reached, '
        "training stops with a committed checkpoint, and the job fails with BudgetExhausted. If "
        "unset, there is no limit.",
    )
    price_per_gpu_hour: PositiveDecimal | None = Field(
        None, description='The price of one GPU hour, such as "2.50". status.cost shows the resulting amount.'
    )
    currency: Currency | None = Field(None, description="The currency of the price, such as EUR.")


class MLflow(StrictModel):
    """An MLflow server that receives metrics."""

    experiment: str = Field(min_length=1, max_length=256, description="The name of the experiment.")
    secret_ref: SecretName = Field(
        description="The Secret with MLflow's own environment variables as keys: `MLFLOW_TRACKING_URI`, and "
        "`MLFLOW_TRACKING_TOKEN` or `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`."
    )


class WeightsAndBiases(StrictModel):
    """A Weights & Biases project that receives metrics."""

    project: str = Field(min_length=1, max_length=128, description="The name of the project.")
    entity: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None,
        description="The team or user of the project. If unset, the default entity of the API key is used.",
    )
    secret_ref: SecretName = Field(
        description="The Secret with W&B's own environment variables as keys: `WANDB_API_KEY` and, for a "
        "self-hosted server, `WANDB_BASE_URL`."
    )


class Tracking(StrictModel):
    """Experiment trackers that receive metrics in addition to the status."""

    tensor_board: bool = Field(
        True,
        description="If true, TensorBoard event files are written to <workspace or "
        "output>/<namespace>/<uid>/tensorboard.",
    )
    mlflow: MLflow | None = Field(None, description="An MLflow server that receives metrics.")
    weights_and_biases: WeightsAndBiases | None = Field(
        None, description="A Weights & Biases project that receives metrics."
    )
