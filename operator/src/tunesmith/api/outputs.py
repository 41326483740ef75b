"""What comes out, where it is kept, what is tracked, and what it may cost."""

from typing import Annotated

from pydantic import Field

from tunesmith_contract.run_config import OutputFormat

from .common import SecretName, StrictModel
from .rules import Rule
from .sources import STORE_KEYS
from .uris import OutputUri, WorkspaceUri
from .values import Currency, PositiveDecimal


class Checkpoints(StrictModel):
    """When the state of training is saved, so that another attempt goes on from there."""

    every_steps: int = Field(100, ge=1, le=1_000_000, description="Optimizer steps between two checkpoints.")
    keep: int = Field(
        3, ge=1, le=100, description="How many of the latest checkpoints are kept while training."
    )


class Output(StrictModel):
    """Where the artefact is kept, and in which forms."""

    uri: OutputUri = Field(
        description="A claim that the pods may write to, with a folder or without: pvc://artifacts/team-a; or "
        "s3://bucket/folder, gs://bucket/folder, oci://registry/repository, hf://org/repo. "
        "Artefacts lie below it by digest and are never removed by the operator."
    )
    formats: Annotated[tuple[OutputFormat, ...], Field(max_length=len(OutputFormat))] = Field(
        (OutputFormat.ADAPTER,),
        description="What comes out. Adapter: what was trained, always there whether written or not (the whole "
        "model, where no adapter is trained). Merged: the base model with the adapter in it. GGUF: one file with "
        "an Ollama Modelfile.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


class Workspace(StrictModel):
    """Where work files lie: prepared data, checkpoints. They are removed when training has succeeded."""

    uri: WorkspaceUri = Field(
        description="pvc://claim/folder, s3://bucket/folder or gs://bucket/folder. Several nodes need a claim that "
        "all of them can write to."
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


class Budget(StrictModel):
    """What the job may take. GPU time counts from the start of its training pods to their end."""

    rules = (
        Rule(
            "has(self.gpuHours) || has(self.pricePerGpuHour)",
            'Write gpuHours for a limit, such as "10", or pricePerGpuHour to see what it costs, or both.',
            lambda budget: budget.gpu_hours is not None or budget.price_per_gpu_hour is not None,
        ),
        Rule(
            "has(self.pricePerGpuHour) == has(self.currency)",
            'A price needs a currency, and a currency a price: pricePerGpuHour: "2.50" and currency: EUR.',
            lambda budget: (budget.price_per_gpu_hour is None) == (budget.currency is None),
        ),
    )

    gpu_hours: PositiveDecimal | None = Field(
        None,
        description='GPUs times hours that may be used, over all attempts, such as "10". Then training stops with a '
        "committed checkpoint, and the job fails with BudgetExhausted. Absent: no limit.",
    )
    price_per_gpu_hour: PositiveDecimal | None = Field(
        None, description='What one GPU costs an hour, such as "2.50". status.cost shows the amount.'
    )
    currency: Currency | None = Field(None, description="The price's currency, such as EUR.")


class MLflow(StrictModel):
    """Metrics to an MLflow server."""

    experiment: str = Field(min_length=1, max_length=256, description="Name of the experiment.")
    secret_ref: SecretName = Field(
        description="Secret with MLflow's own variables as keys: `MLFLOW_TRACKING_URI`, and "
        "`MLFLOW_TRACKING_TOKEN` or `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`."
    )


class WeightsAndBiases(StrictModel):
    """Metrics to Weights & Biases."""

    project: str = Field(min_length=1, max_length=128, description="Name of the project.")
    entity: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="Team or user. Absent: the key's own."
    )
    secret_ref: SecretName = Field(
        description="Secret with W&B's own variables as keys: `WANDB_API_KEY` and, for a server of your own, "
        "`WANDB_BASE_URL`."
    )


class Tracking(StrictModel):
    """Where metrics go besides the status."""

    tensor_board: bool = Field(
        True,
        description="Write TensorBoard's event files to <workspace or output>/<namespace>/<uid>/tensorboard.",
    )
    mlflow: MLflow | None = Field(None, description="Send metrics to an MLflow server.")
    weights_and_biases: WeightsAndBiases | None = Field(None, description="Send metrics to Weights & Biases.")
