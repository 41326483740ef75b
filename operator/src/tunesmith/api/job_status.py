"""A FineTuneJob's status: how far it is, what was decided, what came out."""

from typing import Annotated

from pydantic import Field

from tunesmith_contract.report import MAX_CURVE_POINTS, MAX_DATA_ISSUES
from tunesmith_contract.run_config import Offload, OutputFormat, Parallelism

from .common import Conditions, StatusModel
from .generate import GenerationStatus
from .reasons import FineTuneJobPhase
from .rules import keyed_by
from .status import ArtifactRef, Cost, Failure
from .values import Measured, Timestamp

MAX_STATUS_CHECKPOINTS = 5
MAX_REMEDIES = 4


class Resolved(StatusModel):
    """What every Auto and every open reference came to."""

    base_model_revision: str | None = Field(
        None, max_length=80, description="Commit of the base model, or digest of its files."
    )
    dataset_digest: str | None = Field(
        None, max_length=71, description="Digest of the rows that were trained on."
    )
    base_model: str | None = Field(
        None, max_length=512, description="Where the base model lies, an earlier job's followed to its end."
    )
    initial_digest: str | None = Field(
        None, max_length=71, description="Digest of the earlier artefact that training started from."
    )
    image: str | None = Field(None, max_length=512, description="The trainer image.")
    learning_rate: Measured | None = Field(None, description="Peak learning rate.")
    batch_size: int | None = Field(None, ge=1, description="Rows per optimizer step, over all GPUs.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Rows that go through the model at once on one GPU."
    )
    packing: bool | None = Field(None, description="Whether short rows share a sequence.")
    parallelism: Parallelism | None = Field(None, description="How GPUs share the work.")
    offload: Offload | None = Field(None, description="What is kept in the host's memory.")
    activation_checkpointing: bool | None = Field(
        None, description="Whether activations are computed again instead of kept."
    )
    precision: str | None = Field(None, max_length=16, description="Type of the numbers, such as bfloat16.")
    kernels: str | None = Field(
        None, max_length=64, description="Attention and fused kernels that are used, by the hardware found."
    )
    gpu_memory: str | None = Field(
        None, max_length=16, description="Memory of one GPU that the job was fitted to, such as 80Gi."
    )


class Tokens(StatusModel):
    """Tokens per row, by the model's own tokenizer and chat template."""

    p50: int = Field(ge=0, description="Half of the rows have at most so many.")
    p95: int = Field(ge=0, description="95 of 100 rows have at most so many.")
    max: int = Field(ge=0, description="The longest row.")
    total: int = Field(0, ge=0, description="All rows together.")


class DataIssue(StatusModel):
    """What a check says of the data as a whole."""

    check: str = Field(max_length=40, description="The check's name, such as contradicting_answers.")
    rows: int = Field(ge=0, description="How many rows it concerns.")


class DatasetStatus(StatusModel):
    """What was found in the data."""

    format: str | None = Field(None, max_length=32, description="How the rows are written.")
    rows: int = Field(
        ge=0,
        description="Rows read: trainRows + validationRows + duplicates + nearDuplicates + leakedRows + "
        "droppedRows.",
    )
    train_rows: int = Field(ge=0, description="Rows trained on.")
    validation_rows: int = Field(0, ge=0, description="Rows held out.")
    duplicates: int = Field(0, ge=0, description="Rows left out because they repeat another.")
    near_duplicates: int = Field(
        0,
        ge=0,
        description="Rows left out because they are nearly the same as another, with deduplicate: Near.",
    )
    leaked_rows: int = Field(
        0,
        ge=0,
        description="Rows left out because a held-out set has them too: of training those of validation or "
        "evaluation, of validation.uri those of evaluation.",
    )
    dropped_rows: int = Field(0, ge=0, description="Rows left out because they failed a check.")
    truncated_rows: int = Field(0, ge=0, description="Rows longer than maxLength.")
    tokens: Tokens | None = Field(None, description="Tokens per row.")
    issues: Annotated[tuple[DataIssue, ...], Field(max_length=MAX_DATA_ISSUES)] = Field(
        (),
        description="What checks of quality found, the gravest first. The report names the rows and says what to do.",
    )
    warnings: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=4)] = Field(
        (), description="What to look at, though it stops nothing."
    )
    recommendation: str | None = Field(
        None,
        max_length=300,
        description="The method and adapter that suit what was found, and why. The job keeps to what spec says.",
    )
    report: str | None = Field(
        None,
        max_length=512,
        description="Where the report for people lies: one HTML page with all that was found.",
    )


class Progress(StatusModel):
    """How far the stage is that runs; measured numbers are as of the last report.

    Training says all of it, the stages before it ``percent``, ``remaining`` and ``last_update_time``.
    """

    step: int | None = Field(None, ge=0, description="Optimizer steps done.")
    total_steps: int | None = Field(None, ge=0, description="Optimizer steps in all.")
    percent: str | None = Field(None, max_length=4, description="Share of the stage done, such as 42%.")
    epoch: Measured | None = Field(None, description="Epochs done, such as 1.5.")
    loss: Measured | None = Field(None, description="Training loss, nats per token.")
    eval_loss: Measured | None = Field(None, description="Loss on the validation rows, nats per token.")
    perplexity: Measured | None = Field(
        None, description="Of the validation rows, with method pretraining: e to the power of evalLoss."
    )
    reward: Measured | None = Field(
        None, description="Mean reward of the latest answers, with methods that learn from rewards."
    )
    eval_reward: Measured | None = Field(
        None, description="Mean reward of answers to prompts of the validation rows."
    )
    tokens_per_second: Measured | None = Field(
        None, description="Tokens trained on per second, over all GPUs."
    )
    remaining: str | None = Field(
        None, max_length=16, description="Time left of the stage as estimated, such as 12m30s."
    )
    last_update_time: Timestamp | None = Field(None, description="When the pod last reported.")


class MemoryParts(StatusModel):
    """What takes the memory of a GPU."""

    weights: str = Field(max_length=16, description="The model's weights.")
    adapter: str | None = Field(None, max_length=16, description="The adapter's weights.")
    gradients: str | None = Field(None, max_length=16, description="Gradients.")
    optimizer: str | None = Field(None, max_length=16, description="The optimizer's state.")
    activations: str | None = Field(None, max_length=16, description="Activations of one micro-batch.")
    logits: str | None = Field(
        None, max_length=16, description="The output layer's numbers of one micro-batch."
    )
    reference: str | None = Field(
        None, max_length=16, description="Other models beside: a reference, a teacher, a reward model."
    )
    overhead: str | None = Field(None, max_length=16, description="CUDA itself, and gaps between blocks.")


class MemoryEstimate(StatusModel):
    """What training takes of each GPU, estimated before one is asked for."""

    per_gpu: str = Field(max_length=16, description="Estimate for each GPU, such as 18.2Gi.")
    available: str | None = Field(
        None, max_length=16, description="Memory of one GPU. Absent: nobody says how much it has."
    )
    measured: str | None = Field(
        None, max_length=16, description="The most that was used in fact, once training is over."
    )
    parts: MemoryParts | None = Field(None, description="What it is made of.")


class CheckpointStatus(StatusModel):
    """A committed checkpoint: another attempt can go on from it."""

    step: int = Field(ge=0, description="Optimizer steps done by then.")
    uri: str = Field(max_length=512, description="Where it lies, until training has succeeded.")
    digest: str = Field(max_length=71, description="Digest of its commit manifest.")
    eval_loss: Measured | None = Field(None, description="Loss on the validation rows by then.")
    time: Timestamp = Field(description="When it was committed.")


class LossPoint(StatusModel):
    """The losses at a step, nats per token, and the reward where there is one."""

    step: int = Field(ge=0, description="Optimizer steps done.")
    loss: Measured | None = Field(None, description="Training loss.")
    eval_loss: Measured | None = Field(
        None, description="Loss on the validation rows, where it was measured."
    )
    reward: Measured | None = Field(None, description="Mean reward of the answers of the latest steps.")


class ExportStatus(ArtifactRef):
    """The same result in another format."""

    format: OutputFormat = Field(description="As in output.formats.")


class JobArtifact(ArtifactRef):
    """What came out."""

    kind: str | None = Field(
        None,
        max_length=32,
        description="LoRA, RSLoRA, DoRA, RewardAdapter, Model or RewardModel.",
    )
    servable: bool | None = Field(
        None, description="Whether an AdapterDeployment can serve it. The condition Servable says why not."
    )
    exports: Annotated[tuple[ExportStatus, ...], Field(max_length=len(OutputFormat))] = Field(
        (), description="The same result in other formats.", json_schema_extra=keyed_by("format")
    )


class JobCost(Cost):
    """What it took, and what was expected."""

    amount: Measured | None = Field(None, description="GPU hours times budget.pricePerGpuHour.")
    currency: str | None = Field(None, max_length=3, description="The amount's currency.")
    estimated_gpu_seconds: Measured | None = Field(
        None, description="What the whole of training is expected to take, as seen from its speed so far."
    )
    estimated_amount: Measured | None = Field(None, description="What that will cost.")


class Estimate(StatusModel):
    """What the whole of training will take, said before it begins: an order of magnitude."""

    steps: int = Field(ge=1, description="Optimizer steps.")
    epochs: int = Field(
        ge=1, description="How often each row is learned from; fewer where maxSteps ends it before."
    )
    tokens: int = Field(
        ge=0,
        description="Tokens that go through the model in all epochs, answers that it writes itself included.",
    )
    duration: str | None = Field(
        None,
        max_length=16,
        description="Time on the slowest GPUs that the pods may get, such as 2h10m. Absent: there are none, or their "
        "nodes' labels don't say what they are.",
    )
    gpu_hours: Measured | None = Field(None, description="GPUs times hours.")
    amount: Measured | None = Field(None, description="GPU hours times budget.pricePerGpuHour.")
    currency: str | None = Field(None, max_length=3, description="The amount's currency.")


class Remedy(StatusModel):
    """What was changed after an attempt ran out of memory. The batch size stays: only its parts get smaller."""

    attempt: int = Field(ge=1, description="The attempt that ran with it first.")
    micro_batch_size: int = Field(ge=1, description="Rows at once on one GPU since then.")
    time: Timestamp = Field(description="When it was decided.")


class FineTuneJobStatus(StatusModel):
    """How far the job is and what came out."""

    phase: FineTuneJobPhase | None = Field(None, description="How far it is, for people.")
    conditions: Conditions = ()
    observed_generation: int = Field(0, ge=0, description="The metadata.generation that status speaks of.")
    method: str | None = Field(None, max_length=32, description="The method, such as SFT.")
    resolved: Resolved | None = Field(None, description="What every Auto and every open reference came to.")
    generation: GenerationStatus | None = Field(
        None, description="What a teacher has made, with dataset.generate."
    )
    dataset: DatasetStatus | None = Field(None, description="What was found in the data.")
    estimate: Estimate | None = Field(
        None,
        description="What the whole of training will take, said before it begins: an order of magnitude.",
    )
    progress: Progress | None = Field(
        None,
        description="How far the stage is that runs: of training all fields; of generate and prepare percent, "
        "remaining and lastUpdateTime.",
    )
    memory_estimate: MemoryEstimate | None = Field(
        None, description="What training takes of each GPU, estimated before one is asked for."
    )
    checkpoints: Annotated[tuple[CheckpointStatus, ...], Field(max_length=MAX_STATUS_CHECKPOINTS)] = Field(
        (),
        description="The latest committed checkpoints, oldest first.",
        json_schema_extra=keyed_by("step"),
    )
    curve: Annotated[tuple[LossPoint, ...], Field(max_length=MAX_CURVE_POINTS)] = Field(
        (),
        description="How the losses went; every step's lie beside the artefact.",
        json_schema_extra=keyed_by("step"),
    )
    best_step: int | None = Field(
        None, ge=0, description="The step whose weights the artefact holds, where it is not the last."
    )
    overfitting_step: int | None = Field(
        None, ge=0, description="Where the loss on the validation rows turned and went up, if it did."
    )
    stopped_early: bool | None = Field(None, description="Whether earlyStopping ended it.")
    remedies: Annotated[tuple[Remedy, ...], Field(max_length=MAX_REMEDIES)] = Field(
        (),
        description="What was changed after an attempt ran out of memory.",
        json_schema_extra=keyed_by("attempt"),
    )
    artifact: JobArtifact | None = Field(None, description="What came out.")
    eval_run: str | None = Field(None, max_length=63, description="Name of the EvalRun made of evaluation.")
    cost: JobCost | None = Field(None, description="What it took, and what was expected.")
    failure: Failure | None = Field(None, description="Why it failed, in phase Failed.")
    start_time: Timestamp | None = Field(None, description="When the operator first acted on it.")
    completion_time: Timestamp | None = Field(None, description="When it ended.")
    attempts: int = Field(0, ge=0, description="Training pods' gangs that were started for it.")
    disruptions: int = Field(0, ge=0, description="Attempts that ended by a preemption, not by a fault.")
