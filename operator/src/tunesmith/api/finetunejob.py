"""FineTuneJob: base model, data and method in; a versioned, digest-pinned adapter out."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.alias_generators import to_camel

from tunesmith_contract.run_config import DataFormat, Deduplicate, OnInvalidRow, Scheduler

from .common import (
    BaseModelSource,
    Conditions,
    DataSource,
    PodTemplate,
    Resource,
    Resources,
    StatusModel,
    StrictModel,
)
from .evalrun import EvaluationTemplate, Prompting
from .reasons import FineTuneJobPhase
from .rules import Rule, exactly_one, matching
from .status import ArtifactRef, Cost, Failure
from .values import (
    BatchSize,
    DataUri,
    DecimalString,
    Fraction,
    Image,
    LearningRate,
    Measured,
    OutputUri,
    Timestamp,
)

ALL_LINEAR = "all-linear"


class Validation(StrictModel):
    """Rows held out of training, on which the loss is measured while training."""

    rules = (
        exactly_one(
            ("fraction", "uri"),
            'Name the validation rows in one way: fraction: "0.1", or uri for a set of their own.',
        ),
    )

    fraction: Fraction | None = Field(
        None,
        description='Share of the training rows that is held out, drawn with the seed, such as "0.1". "0": '
        "none.",
    )
    uri: DataUri | None = Field(
        None, description="Rows of their own, as in train. None of them is used for training."
    )


class Dataset(StrictModel):
    """The rows to learn from, and what to do with bad and repeated ones."""

    rules = (
        Rule(
            "self.onInvalidRow == 'Drop' || !has(self.maxInvalidFraction)",
            "maxInvalidFraction has no effect with onInvalidRow: Fail. Leave it out, or write onInvalidRow: "
            "Drop.",
            lambda data: data.on_invalid_row is OnInvalidRow.DROP or data.max_invalid_fraction is None,
        ),
        Rule(
            "self.onInvalidRow == 'Fail' || has(self.maxInvalidFraction)",
            "onInvalidRow: Drop needs a limit: say how many bad rows are too many, such as "
            'maxInvalidFraction: "0.01".',
            lambda data: data.on_invalid_row is OnInvalidRow.FAIL or data.max_invalid_fraction is not None,
        ),
    )

    train: DataSource = Field(description="The rows to learn from.")
    validation: Validation = Field(
        Validation(fraction="0.1"), description="Rows held out of training, on which the loss is measured."
    )
    format: DataFormat = Field(
        DataFormat.AUTO,
        description='How rows are written. Chat: {"messages": [{"role": …, "content": …}]}. '
        'PromptCompletion: {"prompt": …, "completion": …}. Auto: seen from the first row.',
    )
    on_invalid_row: OnInvalidRow = Field(
        OnInvalidRow.FAIL,
        description="What a row that fails a check does. Fail: the job fails before it takes a GPU, with "
        "file, line and check. Drop: the row is left out and counted, up to maxInvalidFraction.",
    )
    max_invalid_fraction: Fraction | None = Field(
        None,
        description='With onInvalidRow: Drop: the share of rows above which the job fails, such as "0.01".',
    )
    deduplicate: Deduplicate = Field(
        Deduplicate.EXACT,
        description="Exact: rows that repeat an earlier one are left out of training and counted. None: all "
        "are used.",
    )


class SFT(StrictModel):
    """Supervised fine-tuning: learn to give the answers in the rows."""

    assistant_only_loss: bool = Field(
        True,
        description="Learn from the assistant's words only, not from the questions. False: from every token "
        "of the row.",
    )
    packing: bool = Field(
        False,
        description="Put several short rows into one sequence of maxLength: faster where rows are short.",
    )
    max_length: int = Field(
        1024, ge=8, le=1_048_576, description="Where a row is cut off, in tokens. Memory grows with it."
    )


class Method(StrictModel):
    """How the model learns. Exactly one member; the member's name is the method."""

    rules = (exactly_one(("sft",), "Choose a method: write method: {sft: {}} for supervised fine-tuning."),)

    sft: SFT | None = Field(
        None,
        description="Supervised fine-tuning: rows hold questions and the answers to give. `sft: {}` takes "
        "the defaults.",
    )

    @property
    def name(self) -> str:
        """The chosen method, as people write it."""
        return "SFT"


class LoRA(StrictModel):
    """A low-rank adapter (LoRA): small matrices beside the frozen weights of the base model."""

    rules = (
        Rule(
            f"!('{ALL_LINEAR}' in self.targetModules) || self.targetModules.size() == 1",
            "all-linear is every linear layer already: write it alone, or name single modules.",
            lambda adapter: ALL_LINEAR not in adapter.target_modules or len(adapter.target_modules) == 1,
            ".targetModules",
        ),
    )

    type: Literal["LoRA"] = Field("LoRA", description="Kind of adapter.")
    rank: int = Field(
        16,
        ge=1,
        le=512,
        description="Size of the adapter's matrices: 8 to 32 for a task, more for much data. An "
        "AdapterDeployment must allow it (engine.maxRank).",
    )
    alpha: int = Field(
        32, ge=1, le=4096, description="Scale of the adapter: its output is multiplied by alpha / rank."
    )
    dropout: Fraction = Field(
        "0", description='Share of the adapter\'s inputs dropped in training, such as "0.05".'
    )
    target_modules: Annotated[
        tuple[
            Annotated[
                str,
                Field(max_length=128),
                matching(
                    r"^(all-linear|[A-Za-z0-9_.]+)$",
                    "Write module names such as q_proj, or all-linear for all.",
                ),
            ],
            ...,
        ],
        Field(min_length=1, max_length=32),
    ] = Field(
        (ALL_LINEAR,),
        description="The linear layers that get an adapter, by the end of their name: [q_proj, v_proj]. "
        "[all-linear]: all but the output layer.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class Hyperparameters(StrictModel):
    """How training goes. The defaults suit LoRA on some hundred to some thousand rows."""

    epochs: int = Field(3, ge=1, le=1000, description="How often all rows are gone through.")
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None, description="Stop after so many optimizer steps, where the epochs take more."
    )
    learning_rate: LearningRate = Field(
        "Auto",
        description='Peak learning rate in quotes, such as "2e-4". Auto: chosen for the adapter; '
        "status.resolved shows it.",
    )
    batch_size: BatchSize = Field(
        "Auto",
        description="Rows per optimizer step, over all GPUs. Auto: chosen for the number of rows; "
        "status.resolved shows it.",
    )
    warmup_ratio: Fraction = Field("0.03", description="Share of the steps in which the learning rate rises.")
    scheduler: Scheduler = Field(
        Scheduler.LINEAR,
        description="How the learning rate goes on after that. Linear and Cosine fall to 0; Constant stays.",
    )
    weight_decay: DecimalString = Field("0", description='Pull of the weights towards 0, such as "0.01".')
    seed: int = Field(
        42,
        ge=0,
        le=4_294_967_295,
        description="Seed of the split, the order of rows and the adapter's first weights.",
    )


class Compute(StrictModel):
    """What the training pods get."""

    nodes: Annotated[
        int,
        Rule(
            "self == 1",
            "Training on more than one node is not there yet: write nodes: 1.",
            lambda nodes: nodes == 1,
        ),
    ] = Field(1, description="Pods that train together, each on a node of its own.")
    gpus_per_node: int = Field(1, ge=0, le=16, description="GPUs of each pod. 0: CPU only.")
    resources: Resources | None = Field(None, description="CPU and memory of each pod.")
    image: Image | None = Field(None, description="A trainer image of your own. Absent: the operator's.")
    template: PodTemplate | None = Field(None, description="Where and as whom the pods run.")


class Checkpoints(StrictModel):
    """When the state of training is saved, so that another attempt goes on from there."""

    every_steps: int = Field(100, ge=1, le=1_000_000, description="Optimizer steps between two checkpoints.")
    keep: int = Field(
        3, ge=1, le=100, description="How many of the latest checkpoints are kept while training."
    )


class Output(StrictModel):
    """Where the artefact is kept."""

    uri: OutputUri = Field(
        description="A claim that the pods may write to, with a folder or without: pvc://artifacts/team-a. "
        "Artefacts lie below it by digest and are never removed by the operator."
    )


class JobEvaluation(EvaluationTemplate):
    """An EvalRun, made when training has succeeded; its candidate is this job's artefact."""

    candidate: Prompting = Field(Prompting(), description="How the tuned model is asked.")


_MUTABLE = frozenset({"suspend", "active_deadline_seconds", "ttl_seconds_after_finished"})


def _unchanging(name: str, optional: bool) -> Rule:
    """A transition rule on the parent, so that adding and removing the member is covered too."""
    new, old = f"self.{name}", f"oldSelf.{name}"
    same = f"has({new}) == has({old}) && (!has({new}) || {new} == {old})" if optional else f"{new} == {old}"
    return Rule(
        same,
        f"{name} can't be changed once the job is made. Make a new FineTuneJob; suspend, "
        "activeDeadlineSeconds and ttlSecondsAfterFinished are what may change.",
        field=f".{name}",
    )


class FineTuneJobSpec(StrictModel):
    """What to train, on what, and how. The three fields of _MUTABLE may change later."""

    base_model: BaseModelSource = Field(description="The model to tune.")
    dataset: Dataset = Field(description="The rows to learn from.")
    method: Method = Field(description="How the model learns. Exactly one member, such as sft: {}.")
    adapter: LoRA = Field(
        description="The adapter to train. `adapter: {}` is a LoRA adapter with the defaults.",
        json_schema_extra={
            "x-required-message": "Training all weights is not there yet: write adapter: {} for a LoRA "
            "adapter with the "
            "defaults."
        },
    )
    hyperparameters: Hyperparameters = Field(Hyperparameters(), description="How training goes.")
    compute: Compute = Field(Compute(), description="What the training pods get.")
    checkpoints: Checkpoints = Field(
        Checkpoints(),
        description="When the state of training is saved, so that another attempt goes on from there.",
    )
    output: Output = Field(description="Where the artefact is kept.")
    evaluation: JobEvaluation | None = Field(
        None,
        description="An EvalRun of the same name, made when training has succeeded. Its candidate is this "
        "job's artefact.",
    )
    suspend: bool = Field(
        False, description="True: the pods are ended after a checkpoint, and started again when it is false."
    )
    backoff_limit: int = Field(
        3, ge=0, le=20, description="How often a failed attempt is tried again. Preemptions do not count."
    )
    active_deadline_seconds: Annotated[int, Field(ge=60, le=31_536_000)] | None = Field(
        None, description="The job fails when it has run for longer than this, in seconds. Absent: no limit."
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        None,
        description="Removes the pods and Jobs so long after the end, in seconds; never the resource or the "
        "artefact. Absent: they are kept.",
    )


FineTuneJobSpec.rules = tuple(
    _unchanging(to_camel(name), optional=field.default is None)
    for name, field in FineTuneJobSpec.model_fields.items()
    if name not in _MUTABLE
)


class Resolved(StatusModel):
    """What every Auto and every open reference came to."""

    base_model_revision: str | None = Field(
        None, max_length=80, description="Commit of the base model, or digest of its files."
    )
    dataset_digest: str | None = Field(
        None, max_length=71, description="Digest of the rows that were trained on."
    )
    image: str | None = Field(None, max_length=512, description="The trainer image.")
    learning_rate: Measured | None = Field(None, description="Peak learning rate.")
    batch_size: int | None = Field(None, ge=1, description="Rows per optimizer step, over all GPUs.")


class Tokens(StatusModel):
    """Tokens per row, by the model's own tokenizer and chat template."""

    p50: int = Field(ge=0, description="Half of the rows have at most so many.")
    p95: int = Field(ge=0, description="95 of 100 rows have at most so many.")
    max: int = Field(ge=0, description="The longest row.")
    total: int = Field(0, ge=0, description="All rows together.")


class DatasetStatus(StatusModel):
    """What was found in the data. rows = trainRows + validationRows + duplicates + droppedRows."""

    format: str | None = Field(None, max_length=32, description="How the rows are written.")
    rows: int = Field(ge=0, description="Rows read.")
    train_rows: int = Field(ge=0, description="Rows trained on.")
    validation_rows: int = Field(0, ge=0, description="Rows held out.")
    duplicates: int = Field(0, ge=0, description="Rows left out because they repeat another.")
    dropped_rows: int = Field(0, ge=0, description="Rows left out because they failed a check.")
    truncated_rows: int = Field(0, ge=0, description="Rows longer than maxLength.")
    tokens: Tokens | None = Field(None, description="Tokens per row.")
    warnings: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=4)] = Field(
        (), description="What to look at, though it stops nothing."
    )


class Progress(StatusModel):
    """How far training is; measured numbers are as of the last report."""

    step: int = Field(0, ge=0, description="Optimizer steps done.")
    total_steps: int = Field(0, ge=0, description="Optimizer steps in all.")
    percent: str | None = Field(None, max_length=4, description="Share done, such as 42%.")
    epoch: Measured | None = Field(None, description="Epochs done, such as 1.5.")
    loss: Measured | None = Field(None, description="Training loss, nats per token.")
    eval_loss: Measured | None = Field(None, description="Loss on the validation rows, nats per token.")
    tokens_per_second: Measured | None = Field(
        None, description="Tokens trained on per second, over all GPUs."
    )
    remaining: str | None = Field(None, max_length=16, description="Time left as estimated, such as 12m30s.")
    last_update_time: Timestamp | None = Field(None, description="When the pod last reported.")


class FineTuneJobStatus(StatusModel):
    """How far the job is and what came out."""

    phase: FineTuneJobPhase | None = Field(None, description="How far it is, for people.")
    conditions: Conditions = ()
    observed_generation: int = Field(0, ge=0, description="The metadata.generation that status speaks of.")
    method: str | None = Field(None, max_length=32, description="The method, such as SFT.")
    resolved: Resolved | None = Field(None, description="What every Auto and every open reference came to.")
    dataset: DatasetStatus | None = Field(None, description="What was found in the data.")
    progress: Progress | None = Field(None, description="How far training is.")
    artifact: ArtifactRef | None = Field(None, description="The adapter that came out.")
    eval_run: str | None = Field(None, max_length=63, description="Name of the EvalRun made of evaluation.")
    cost: Cost | None = Field(None, description="What it took.")
    failure: Failure | None = Field(None, description="Why it failed, in phase Failed.")
    start_time: Timestamp | None = Field(None, description="When the operator first acted on it.")
    completion_time: Timestamp | None = Field(None, description="When it ended.")
    attempts: int = Field(0, ge=0, description="Training pods' gangs that were started for it.")
    disruptions: int = Field(0, ge=0, description="Attempts that ended by a preemption, not by a fault.")


class FineTuneJob(Resource):
    """Tunes a base model on your rows and keeps the adapter that comes out, by digest."""

    kind_name: ClassVar[str] = "FineTuneJob"
    plural: ClassVar[str] = "finetunejobs"
    short_name: ClassVar[str] = "ftj"

    kind: Literal["FineTuneJob"] = "FineTuneJob"
    spec: FineTuneJobSpec = Field(description="What to train, on what, and how.")
    status: FineTuneJobStatus = Field(
        FineTuneJobStatus(),
        description="How far the job is and what came out. Written by the operator alone.",
    )
