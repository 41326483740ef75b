"""Status of a FineTuneJob: progress, decisions and results."""

from typing import Annotated

from pydantic import Field

from tunesmith_contract.report import MAX_CURVE_POINTS, MAX_DATA_ISSUES
from tunesmith_contract.run_config import Offload, OutputFormat, Parallelism

from .common import Conditions, StatusModel
from .generate import GenerationStatus
from .reasons import FineTuneJobPhase
from .rules import keyed_by
from .search import SearchStatus
from .status import ArtifactRef, ContainerRequests, Cost, Failure
from .values import Measured, Timestamp

MAX_STATUS_CHECKPOINTS = 5
MAX_REMEDIES = 4


class Resolved(StatusModel):
    """Values that were chosen for Auto settings and open references."""

    base_model_revision: str | None = Field(
        None, max_length=80, description="The commit of the base model, or the digest of its files."
    )
    dataset_digest: str | None = Field(None, max_length=71, description="The digest of the training rows.")
    base_model: str | None = Field(
        None,
        max_length=512,
        description="The location of the base model. With fineTuneJobRef, the base model of the first job in the "
        "chain.",
    )
    initial_digest: str | None = Field(
        None,
        max_length=71,
        description="The digest of the artifact that training started from, with fineTuneJobRef.",
    )
    image: str | None = Field(None, max_length=512, description="The trainer image.")
    learning_rate: Measured | None = Field(None, description="The peak learning rate.")
    batch_size: int | None = Field(
        None, ge=1, description="The number of rows per optimizer step, over all GPUs."
    )
    micro_batch_size: int | None = Field(
        None, ge=1, description="The number of rows that one GPU processes at once."
    )
    packing: bool | None = Field(None, description="True if several short rows share one sequence.")
    parallelism: Parallelism | None = Field(None, description="The distribution strategy of the GPUs.")
    offload: Offload | None = Field(
        None, description="The part of the training state that is kept in host memory."
    )
    activation_checkpointing: bool | None = Field(
        None, description="True if activations are recomputed instead of kept."
    )
    precision: str | None = Field(
        None, max_length=16, description="The data type of the computation, such as bfloat16."
    )
    kernels: str | None = Field(
        None,
        max_length=64,
        description="The attention implementation and fused kernels in use, chosen by the hardware.",
    )
    gpu_memory: str | None = Field(
        None,
        max_length=16,
        description="The memory of one GPU that the settings were chosen for, such as 80Gi.",
    )
    parameters: int | None = Field(None, ge=1, description="The number of parameters of the base model.")
    requests: ContainerRequests | None = Field(
        None,
        description="The requests of each training pod: those in compute.resources, and for the rest those that "
        "follow from the size of the model.",
    )


class Tokens(StatusModel):
    """Distribution of row lengths in tokens, by the tokenizer and chat template of the model."""

    p50: int = Field(ge=0, description="The median length of a row.")
    p95: int = Field(ge=0, description="The 95th percentile of the length of a row.")
    max: int = Field(ge=0, description="The length of the longest row.")
    total: int = Field(0, ge=0, description="The total number of tokens of all rows.")


class DataIssue(StatusModel):
    """A finding of a data quality check."""

    check: str = Field(max_length=40, description="The name of the check, such as contradicting_answers.")
    rows: int = Field(ge=0, description="The number of affected rows.")


class DatasetStatus(StatusModel):
    """Result of data preparation."""

    format: str | None = Field(None, max_length=32, description="The format of the rows.")
    rows: int = Field(
        ge=0,
        description="The number of rows that were read. It is the sum of trainRows, validationRows, duplicates, "
        "nearDuplicates, leakedRows and droppedRows.",
    )
    train_rows: int = Field(ge=0, description="The number of training rows.")
    validation_rows: int = Field(0, ge=0, description="The number of validation rows.")
    duplicates: int = Field(
        0, ge=0, description="The number of rows dropped because they repeat another row."
    )
    near_duplicates: int = Field(
        0,
        ge=0,
        description="The number of rows dropped because they are nearly the same as another row, with "
        "deduplicate: Near.",
    )
    leaked_rows: int = Field(
        0,
        ge=0,
        description="The number of rows dropped because they are also in a held-out set: training rows that are "
        "in the validation or evaluation data, and rows of validation.uri that are in the evaluation "
        "data.",
    )
    dropped_rows: int = Field(
        0,
        ge=0,
        description="The number of rows dropped because they failed a check, with onInvalidRow: Drop.",
    )
    truncated_rows: int = Field(
        0, ge=0, description="The number of rows that are longer than maxLength and are cut off."
    )
    tokens: Tokens | None = Field(None, description="The distribution of row lengths in tokens.")
    issues: Annotated[tuple[DataIssue, ...], Field(max_length=MAX_DATA_ISSUES)] = Field(
        (),
        description="The findings of data quality checks, most serious first. The report lists the rows and what "
        "to do.",
    )
    warnings: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=4)] = Field(
        (), description="Findings that deserve attention but do not fail the job."
    )
    recommendation: str | None = Field(
        None,
        max_length=300,
        description="The recommended method and adapter for this data, with the reason. The job uses the settings"
        " in spec regardless.",
    )
    report: str | None = Field(
        None,
        max_length=512,
        description="The location of the data report, a single HTML page.",
    )


class Progress(StatusModel):
    """Progress of the current stage, as of the last report of its pod.

    Training reports all fields; earlier stages report ``percent``, ``remaining`` and ``last_update_time``.
    """

    step: int | None = Field(None, ge=0, description="The number of completed optimizer steps, in training.")
    total_steps: int | None = Field(
        None, ge=0, description="The total number of optimizer steps, in training."
    )
    percent: str | None = Field(
        None, max_length=4, description="The completed share of the stage, such as 42%."
    )
    epoch: Measured | None = Field(None, description="The number of completed epochs, such as 1.5.")
    loss: Measured | None = Field(None, description="The training loss in nats per token.")
    eval_loss: Measured | None = Field(None, description="The loss on the validation rows in nats per token.")
    perplexity: Measured | None = Field(
        None,
        description="The perplexity of the validation rows (e to the power of evalLoss), with method pretraining.",
    )
    reward: Measured | None = Field(
        None, description="The mean reward of the latest answers, with methods that learn from rewards."
    )
    eval_reward: Measured | None = Field(
        None, description="The mean reward of the answers to the prompts of the validation rows."
    )
    tokens_per_second: Measured | None = Field(
        None, description="The training throughput in tokens per second, over all GPUs."
    )
    remaining: str | None = Field(
        None, max_length=16, description="The estimated remaining time of the stage, such as 12m30s."
    )
    last_update_time: Timestamp | None = Field(None, description="The time of the pod's last report.")


class MemoryParts(StatusModel):
    """Estimated GPU memory by purpose."""

    weights: str = Field(max_length=16, description="Memory for the weights of the model.")
    adapter: str | None = Field(None, max_length=16, description="Memory for the weights of the adapter.")
    gradients: str | None = Field(None, max_length=16, description="Memory for gradients.")
    optimizer: str | None = Field(None, max_length=16, description="Memory for the state of the optimizer.")
    activations: str | None = Field(
        None, max_length=16, description="Memory for the activations of one micro-batch."
    )
    logits: str | None = Field(None, max_length=16, description="Memory for the logits of one micro-batch.")
    reference: str | None = Field(
        None,
        max_length=16,
        description="Memory for additional models: a reference model, a teacher, or a reward model.",
    )
    overhead: str | None = Field(
        None, max_length=16, description="Memory for the CUDA context and for fragmentation."
    )


class MemoryEstimate(StatusModel):
    """GPU memory that training needs, estimated before a GPU is requested."""

    per_gpu: str = Field(max_length=16, description="The estimate for each GPU, such as 18.2Gi.")
    available: str | None = Field(
        None,
        max_length=16,
        description="The part of the memory of one GPU that training is planned with: 94 % less 0.4Gi. It is absent "
        "if the memory is unknown.",
    )
    measured: str | None = Field(
        None, max_length=16, description="The measured peak, once training has ended."
    )
    parts: MemoryParts | None = Field(None, description="The estimate by purpose.")


class CheckpointStatus(StatusModel):
    """A committed checkpoint from which another attempt can resume."""

    step: int = Field(ge=0, description="The number of optimizer steps completed at the checkpoint.")
    uri: str = Field(
        max_length=512,
        description="The location of the checkpoint. It is deleted when training has succeeded, unless "
        "checkpoints.retain is true.",
    )
    digest: str = Field(max_length=71, description="The digest of the checkpoint's commit manifest.")
    eval_loss: Measured | None = Field(None, description="The loss on the validation rows at the checkpoint.")
    time: Timestamp = Field(description="The time at which the checkpoint was committed.")


class LossPoint(StatusModel):
    """The losses at one step in nats per token, and the reward if there is one."""

    step: int = Field(ge=0, description="The number of completed optimizer steps.")
    loss: Measured | None = Field(None, description="The training loss.")
    eval_loss: Measured | None = Field(
        None, description="The loss on the validation rows, if it was measured at this step."
    )
    reward: Measured | None = Field(None, description="The mean reward of the answers of the latest steps.")


class ExportStatus(ArtifactRef):
    """The artifact in another format."""

    format: OutputFormat = Field(description="The format, as in output.formats.")


class JobArtifact(ArtifactRef):
    """The artifact of a job."""

    kind: str | None = Field(
        None,
        max_length=32,
        description="The kind of the artifact: LoRA, RSLoRA, DoRA, RewardAdapter, Model or RewardModel.",
    )
    servable: bool | None = Field(
        None,
        description="True if an AdapterDeployment can serve the artifact. Otherwise the condition Servable "
        "explains why not.",
    )
    exports: Annotated[tuple[ExportStatus, ...], Field(max_length=len(OutputFormat))] = Field(
        (), description="The artifact in other formats.", json_schema_extra=keyed_by("format")
    )


class JobCost(Cost):
    """GPU time and cost of a job, so far and expected."""

    amount: Measured | None = Field(None, description="The cost: GPU hours times budget.pricePerGpuHour.")
    currency: str | None = Field(None, max_length=3, description="The currency of the amounts.")
    estimated_gpu_seconds: Measured | None = Field(
        None, description="The expected GPU seconds of the whole training, estimated from its speed so far."
    )
    estimated_amount: Measured | None = Field(None, description="The expected cost of the whole training.")
    evaluation_gpu_seconds: Measured | None = Field(
        None,
        description="The GPU seconds of the EvalRun that the job created. They are not part of gpuSeconds and of the "
        "budget.",
    )


class Estimate(StatusModel):
    """Expected size of the whole training, estimated before it begins. It is an order of magnitude."""

    steps: int = Field(ge=1, description="The number of optimizer steps.")
    epochs: int = Field(
        ge=1, description="The number of epochs. Training ends earlier if maxSteps is reached first."
    )
    tokens: int = Field(
        ge=0,
        description="The number of tokens processed in all epochs, including answers that the model generates "
        "itself.",
    )
    duration: str | None = Field(
        None,
        max_length=16,
        description="The duration on the slowest GPUs that the pods may be scheduled to, such as 2h10m. It is "
        "absent without GPUs, or if their model is unknown from the labels of the nodes.",
    )
    gpu_hours: Measured | None = Field(
        None, description="The GPU hours: the number of GPUs times the duration."
    )
    amount: Measured | None = Field(None, description="The cost: GPU hours times budget.pricePerGpuHour.")
    currency: str | None = Field(None, max_length=3, description="The currency of the amount.")


class Remedy(StatusModel):
    """A change that the operator made after an attempt ran out of GPU memory.

    The batch size stays the same: it is only processed in smaller parts.
    """

    attempt: int = Field(ge=1, description="The number of the first attempt with the change.")
    micro_batch_size: int = Field(
        ge=1, description="The number of rows that one GPU processes at once since then."
    )
    time: Timestamp = Field(description="The time of the change.")


class FineTuneJobStatus(StatusModel):
    """Observed state of a FineTuneJob."""

    phase: FineTuneJobPhase | None = Field(
        None, description="A summary of the state for people. Tools should use the conditions."
    )
    conditions: Conditions = ()
    observed_generation: int = Field(
        0, ge=0, description="The metadata.generation that this status describes."
    )
    method: str | None = Field(None, max_length=32, description="The training method, such as SFT.")
    resolved: Resolved | None = Field(
        None, description="The values that were chosen for Auto settings and open references."
    )
    generation: GenerationStatus | None = Field(
        None, description="The progress and result of data generation, with dataset.generate."
    )
    dataset: DatasetStatus | None = Field(None, description="The result of data preparation.")
    estimate: Estimate | None = Field(
        None,
        description="The expected size of the whole training, estimated before it begins. It is an order of "
        "magnitude.",
    )
    progress: Progress | None = Field(
        None,
        description="The progress of the current stage. Training reports all fields; generation and preparation "
        "report percent, remaining and lastUpdateTime.",
    )
    memory_estimate: MemoryEstimate | None = Field(
        None, description="The GPU memory that training needs, estimated before a GPU is requested."
    )
    checkpoints: Annotated[tuple[CheckpointStatus, ...], Field(max_length=MAX_STATUS_CHECKPOINTS)] = Field(
        (),
        description="The latest committed checkpoints, oldest first.",
        json_schema_extra=keyed_by("step"),
    )
    curve: Annotated[tuple[LossPoint, ...], Field(max_length=MAX_CURVE_POINTS)] = Field(
        (),
        description="The course of the losses. The losses of every step are stored beside the artifact.",
        json_schema_extra=keyed_by("step"),
    )
    best_step: int | None = Field(
        None, ge=0, description="The step whose weights the artifact holds, if it is not the last step."
    )
    overfitting_step: int | None = Field(
        None, ge=0, description="The step after which the loss on the validation rows rose, if it did."
    )
    stopped_early: bool | None = Field(None, description="True if earlyStopping ended training.")
    search: SearchStatus | None = Field(
        None, description="The trials and the best of them, with spec.search."
    )
    remedies: Annotated[tuple[Remedy, ...], Field(max_length=MAX_REMEDIES)] = Field(
        (),
        description="The changes that the operator made after an attempt ran out of GPU memory.",
        json_schema_extra=keyed_by("attempt"),
    )
    artifact: JobArtifact | None = Field(None, description="The artifact of the job.")
    eval_run: str | None = Field(
        None, max_length=63, description="The name of the EvalRun created for spec.evaluation."
    )
    cost: JobCost | None = Field(None, description="The GPU time and cost, so far and expected.")
    failure: Failure | None = Field(None, description="The cause of the failure, in phase Failed.")
    start_time: Timestamp | None = Field(
        None, description="The time at which the operator first acted on the job."
    )
    completion_time: Timestamp | None = Field(None, description="The time at which the job ended.")
    attempts: int = Field(
        0,
        ge=0,
        description="The number of attempts of all stages. One attempt starts all pods of a stage.",
    )
    disruptions: int = Field(
        0, ge=0, description="The number of attempts that ended by a preemption and not by a fault."
    )
