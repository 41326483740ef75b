"""Run configuration (``run.json``) of generate, prepare, train and evaluate pods.

``output`` is the URI below which artifacts are placed, ``workspace`` that of work files, where it is another.
The operator writes it into an immutable snapshot; every ``Auto`` is a number by then.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from .answer_formats import MAX_SWITCHES, Switch
from .base import Digest, Document, canonical_json
from .evaluation import (
    MAX_GATES,
    MAX_LINEAGE,
    MAX_REFERENCES,
    MAX_SUITES,
    Engine,
    Gate,
    ModelUse,
    Side,
    Suite,
    TrainedRows,
)
from .generation import Generation
from .labels import ArgillaSource
from .methods import Fraction, Method, Name
from .search import SearchSettings
from .sources import ArtifactSource, DataFormat
from .stages import Stage

SCHEMA_VERSION: Literal[1] = 1

MAX_TRAIN_URIS = 64
MAX_HELD_OUT = MAX_SUITES

#: Jaccard similarity from which two rows are nearly the same, unless something else is asked for.
NEAR_THRESHOLD = 0.8


class OnInvalidRow(StrEnum):
    """Consequence of a row that fails a check."""

    FAIL = "Fail"
    DROP = "Drop"


class Deduplicate(StrEnum):
    """Repeated rows that are removed from training: equal ones, or near duplicates, too."""

    EXACT = "Exact"
    NEAR = "Near"
    NONE = "None"


class PersonalData(StrEnum):
    """Handling of personal data (addresses, numbers, keys): kept, reported or masked."""

    IGNORE = "Ignore"
    REPORT = "Report"
    MASK = "Mask"


class Scheduler(StrEnum):
    """Schedule of the learning rate after the warm-up."""

    LINEAR = "Linear"
    COSINE = "Cosine"
    CONSTANT = "Constant"


class Owner(Document):
    """Resource that a run belongs to."""

    kind: Literal["FineTuneJob", "EvalRun"]
    namespace: str
    name: str
    uid: str


class ValidationSource(Document):
    """Rows held out of training: a fraction of the training rows, or a set of their own.

    ``group_field`` and ``stratify_field`` name members of the rows as they are written: rows of one group stay on one
    side; each value of a stratum is held out in the same proportion.
    """

    fraction: Fraction = 0.0
    uri: str | None = None
    group_field: str | None = Field(None, max_length=128)
    stratify_field: str | None = Field(None, max_length=128)


class HeldOut(Document):
    """Rows that must not be trained on: a suite of the evaluation, read as the evaluation reads it."""

    name: Name
    uri: str
    format: DataFormat = DataFormat.AUTO
    columns: dict[str, str] = Field({}, max_length=16)


class AdapterType(StrEnum):
    """Type of the low-rank adapter beside the frozen weights."""

    LORA = "LoRA"
    RSLORA = "RSLoRA"
    DORA = "DoRA"
    QLORA = "QLoRA"


class Adapter(Document):
    """A low-rank adapter on the linear layers (LoRA: Hu et al. 2021, arXiv:2106.09685).

    ``RSLoRA`` scales by alpha / sqrt(rank) (arXiv:2312.03732), ``DoRA`` learns magnitudes too (arXiv:2402.09353),
    ``QLoRA`` keeps the frozen weights in 4-bit NormalFloat (arXiv:2305.14314).
    """

    type: AdapterType = AdapterType.LORA
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: Fraction = 0.0
    target_modules: tuple[str, ...] = ("all-linear",)
    double_quantization: bool = True


class Hyperparameters(Document):
    """Resolved hyperparameters; ``batch_size`` is the effective one, over all devices and accumulation steps."""

    epochs: int = Field(3, ge=1)
    max_steps: int | None = Field(None, ge=1)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    micro_batch_size: int = Field(ge=1)
    warmup_ratio: Fraction = 0.03
    weight_decay: float = Field(0.0, ge=0)
    scheduler: Scheduler = Scheduler.LINEAR
    max_grad_norm: float = Field(1.0, gt=0)
    seed: int = 42


class Parallelism(StrEnum):
    """Parallelism of several devices: whole copies, or DeepSpeed's ZeRO stages 2 and 3."""

    DDP = "DDP"
    ZERO2 = "ZeRO2"
    ZERO3 = "ZeRO3"


class Offload(StrEnum):
    """State that DeepSpeed keeps in the host's memory."""

    NONE = "None"
    OPTIMIZER = "Optimizer"
    ALL = "All"


class EarlyStopping(Document):
    """Early stopping: when the validation loss has not fallen by ``min_delta`` for ``patience`` measurements."""

    patience: int = Field(3, ge=1)
    min_delta: float = Field(0.0, ge=0)


class OutputFormat(StrEnum):
    """Format of an output."""

    ADAPTER = "Adapter"
    MERGED = "Merged"
    GGUF = "GGUF"


class MLflowTracking(Document):
    """Metrics to an MLflow server, whose address and login the Secret holds (``MLFLOW_*`` variables)."""

    experiment: str = Field(max_length=256)


class WeightsAndBiasesTracking(Document):
    """Metrics to Weights & Biases, whose key the Secret holds (``WANDB_*`` variables)."""

    project: str = Field(max_length=128)
    entity: str | None = Field(None, max_length=128)


class Tracking(Document):
    """Destinations of metrics besides the status; TensorBoard's files lie beside the artifact."""

    tensor_board: bool = True
    mlflow: MLflowTracking | None = None
    weights_and_biases: WeightsAndBiasesTracking | None = None


class Checkpoints(Document):
    """Interval of checkpoints, and how many of the last ones are kept; with ``retain`` after training, too."""

    every_steps: int = Field(100, ge=1)
    keep: int = Field(3, ge=1)
    retain: bool = False


def _as_tuple(value: Any) -> Any:
    """One URI, as earlier releases wrote it, is a list of one."""
    return (value,) if isinstance(value, str) else value


class GenerateConfig(Document):
    """Configuration of the generate stage: a teacher makes rows, within a budget.

    Attributes:
        base_model: its tokenizer counts tokens for rewards; None where no reward needs it.
        held_out: rows that must not be generated: validation rows and suites of the evaluation.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    stage: Literal[Stage.GENERATE] = Stage.GENERATE
    owner: Owner
    base_model: str | None = None
    generation: Generation
    held_out: tuple[HeldOut, ...] = Field((), max_length=MAX_HELD_OUT + 1)
    seed: int
    workspace: str | None = None
    output: str


class PrepareConfig(Document):
    """Configuration of the prepare stage: read, check, clean, convert and split the data; inspect the base model.

    Attributes:
        train: files, folders (with a slash at the end) and patterns, in the order in which they are read.
        argilla: labeled rows, instead of them or before them.
        generated: the file of rows that a teacher made, read after those of ``train``.
        held_out: rows that must not be trained on.
        near_threshold: Jaccard similarity from which two rows are nearly the same.
        template_arguments: arguments of the chat template with which rows are rendered.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    stage: Literal[Stage.PREPARE] = Stage.PREPARE
    owner: Owner
    base_model: str
    train: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field((), max_length=MAX_TRAIN_URIS)
    argilla: ArgillaSource | None = None
    generated: str | None = None
    validation: ValidationSource
    held_out: tuple[HeldOut, ...] = Field((), max_length=MAX_HELD_OUT)
    format: DataFormat = DataFormat.AUTO
    on_invalid_row: OnInvalidRow = OnInvalidRow.FAIL
    max_invalid_fraction: Fraction = 0.0
    deduplicate: Deduplicate = Deduplicate.EXACT
    near_threshold: float = Field(NEAR_THRESHOLD, ge=0.5, le=1)
    personal_data: PersonalData = PersonalData.REPORT
    method: Method
    formats: tuple[OutputFormat, ...] = ()
    template_arguments: dict[str, Switch] | None = Field(None, max_length=MAX_SWITCHES)
    seed: int
    workspace: str | None = None
    output: str

    @model_validator(mode="after")
    def _rows_of_some_kind(self) -> Self:
        if not self.train and self.argilla is None and self.generated is None:
            raise ValueError("there is nothing to train on: name train or argilla, or let rows be generated")
        return self


class TrainConfig(Document):
    """Configuration of the train stage: train on the prepared data and commit an artifact.

    ``adapter`` absent: all weights are trained. ``initial`` is the earlier artifact that training starts from.
    ``generation`` is the digest of what says how generated rows were made. ``prepared_by`` is the UID of the
    FineTuneJob of the same namespace whose prepared rows are trained on; absent: the owner's own. With ``search`` the
    stage trains several times, with other parameters each, and commits the best artifact; ``hyperparameters`` and
    ``adapter`` are then what the parameters of a trial replace.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    stage: Literal[Stage.TRAIN] = Stage.TRAIN
    owner: Owner
    base_model: str
    base_model_revision: str
    dataset_digest: Digest
    prepared_by: str | None = Field(None, max_length=64)
    generation: Digest | None = None
    search: SearchSettings | None = None
    method: Method
    adapter: Adapter | None = None
    initial: ArtifactSource | None = None
    hyperparameters: Hyperparameters
    checkpoints: Checkpoints
    early_stopping: EarlyStopping | None = None
    nodes: int = Field(1, ge=1)
    gpus_per_node: int = Field(0, ge=0)
    parallelism: Parallelism = Parallelism.DDP
    offload: Offload = Offload.NONE
    activation_checkpointing: bool = False
    formats: tuple[OutputFormat, ...] = (OutputFormat.ADAPTER,)
    tracking: Tracking = Tracking()
    template_arguments: dict[str, Switch] | None = Field(None, max_length=MAX_SWITCHES)
    image: str
    workspace: str | None = None
    output: str


class EvaluateConfig(Document):
    """Configuration of the evaluate stage: all sides answer the same items; candidate and baseline are compared.

    Attributes:
        base_model: model of the sides that name none; None where each names its own.
        sides: ``sides[0]`` is the candidate and ``sides[1]`` the baseline; the rest are only reported.
        gates: conditions of the verdict.
        few_shot_from: URI of rows from which worked examples are drawn.
        trained_rows: rows that sides were trained on; items among them are left out.
        shards: number of pods that share the items.
        policy: written by earlier releases; not read.
        gpus: GPUs of one pod.
        notes: sentences for the report, such as the reason for which the safety suite is switched off.
        advice: use of the model, for advice in the report; None for none.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    stage: Literal[Stage.EVALUATE] = Stage.EVALUATE
    owner: Owner
    base_model: str | None = None
    sides: tuple[Side, ...] = Field(min_length=2, max_length=2 + MAX_REFERENCES)
    suites: tuple[Suite, ...] = Field(min_length=1, max_length=MAX_SUITES)
    gates: tuple[Gate, ...] = Field((), max_length=MAX_GATES)
    few_shot_from: str | None = None
    trained_rows: tuple[TrainedRows, ...] = Field((), max_length=(2 + MAX_REFERENCES) * MAX_LINEAGE)
    confidence: float = Field(0.95, gt=0, lt=1)
    engine: Engine = Engine.TRANSFORMERS
    shards: int = Field(1, ge=1)
    policy: str = ""
    gpus: int = Field(0, ge=0)
    seed: int = 42
    notes: tuple[str, ...] = Field((), max_length=8)
    advice: ModelUse | None = None
    workspace: str | None = None
    output: str


AnyConfig = GenerateConfig | PrepareConfig | TrainConfig | EvaluateConfig

RunConfig = Annotated[AnyConfig, Field(discriminator="stage")]
_ADAPTER: TypeAdapter[AnyConfig] = TypeAdapter(RunConfig)


def run_file_text(config: AnyConfig) -> str:
    """``run.json`` of a configuration: only what differs from the defaults.

    An image of an earlier release refuses members that it does not know. So a new member is written only where it
    changes something, and the default of a member never changes.
    """
    short = config.to_short_dict() | {"schemaVersion": config.schema_version, "stage": config.stage}
    return canonical_json(short).decode()


def parse_run_config(text: str | bytes) -> AnyConfig:
    """Read ``run.json``.

    Raises:
        pydantic.ValidationError: unknown stage or version, missing or unknown keys.
    """
    return _ADAPTER.validate_json(text)
