"""Live progress of a run, by the protocol of Kubeflow Trainer's status server, which transformers implements.

``POST`` with a bearer token to the URL in ``KUBEFLOW_TRAINER_SERVER_URL``; the token's pod says whose progress it is.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from .base import Report

#: Metrics beyond transformers' own. A checkpoint's four come together, in one update.
CHECKPOINT_STEP = "checkpoint_step"
CHECKPOINT_DIGEST = "checkpoint_digest"  # hex, without "sha256:": a value has 64 characters
CHECKPOINT_EVAL_LOSS = "checkpoint_eval_loss"
CHECKPOINT_TIME = "checkpoint_time"  # seconds since 1970
OVERFITTING_STEP = "overfitting_step"
KERNELS = "kernels"
TOKENS_PER_SECOND = "tokens_per_second"
REWARD = "reward"
EVAL_REWARD = "eval_reward"
#: While rows are generated.
GENERATED_ROWS = "generated_rows"
CALLS = "calls"
PROMPT_TOKENS = "prompt_tokens"
COMPLETION_TOKENS = "completion_tokens"
#: Cost of endpoints so far, where their prices are known.
AMOUNT = "amount"
CURRENCY = "currency"
#: One for each trial of a search in one pod: ``trial_3``, with the trial as ``search.to_line`` writes it.
TRIAL_PREFIX = "trial_"
#: While rows are prepared: a ``PreparePart``; after the last step of training: a ``TrainPart``.
PART = "part"

#: Any of these marks an update by the trainer's own callbacks, which leaves out what transformers measures.
TRAINER_UPDATES = frozenset({CHECKPOINT_STEP, KERNELS, OVERFITTING_STEP, PART})

#: Metrics whose value changes at an event of a run, not with its steps.
MILESTONES = frozenset({CHECKPOINT_STEP, CHECKPOINT_DIGEST, OVERFITTING_STEP, KERNELS, PART})

PROGRESS_PATH = "/progress/v1/namespaces/{namespace}/{plural}/{name}"

SERVER_URL_ENV = "KUBEFLOW_TRAINER_SERVER_URL"
CA_CERT_ENV = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
TOKEN_ENV = "KUBEFLOW_TRAINER_SERVER_TOKEN"


class PreparePart(StrEnum):
    """Parts of the prepare stage, in their order."""

    ASKING = "asking"
    READING = "reading"
    CLEANING = "cleaning"
    JUDGING = "judging"
    WRITING = "writing"


class TrainPart(StrEnum):
    """Parts of the train stage after the last step, in their order."""

    MEASURING = "measuring"
    EXPORTING = "exporting"


class ProgressMetric(Report):
    """One number or word by name, such as ``current_step``, ``total_steps``, ``loss`` or ``eval_loss``."""

    name: str = Field(max_length=64)
    value: str = Field(max_length=192)


class TrainerStatus(Report):
    """Progress of a run."""

    last_updated_time: datetime
    progress_percentage: int | None = Field(None, ge=0, le=100)
    estimated_remaining_seconds: int | None = Field(None, ge=0)
    metrics: tuple[ProgressMetric, ...] = Field((), max_length=128)


class ProgressUpdate(Report):
    """The body of a progress request."""

    trainer_status: TrainerStatus
