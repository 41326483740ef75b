"""FineTuneJob: base model, data and method in; a versioned, digest-pinned adapter or model out."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.alias_generators import to_camel

from .combinations import SPEC_RULES
from .common import Resource, StrictModel
from .compute import Compute
from .evalrun import EvaluationTemplate, Prompting
from .job_status import FineTuneJobStatus
from .methods import Method
from .outputs import Budget, Checkpoints, Output, Tracking, Workspace
from .recipe import Adapter, EarlyStopping, Hyperparameters
from .rules import Rule
from .sources import BaseModel, Dataset


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

    base_model: BaseModel = Field(description="The model to tune: exactly one of uri and fineTuneJobRef.")
    dataset: Dataset = Field(description="The rows to learn from.")
    method: Method = Field(description="How the model learns. Exactly one member, such as sft: {}.")
    adapter: Adapter | None = Field(
        None,
        description="The adapter to train: `adapter: {}` is LoRA with the defaults. Absent: all weights are trained, "
        "which takes many times the memory; what comes out is a whole model.",
    )
    hyperparameters: Hyperparameters = Field(Hyperparameters(), description="How training goes.")
    early_stopping: EarlyStopping | None = Field(
        None,
        description="Stop when the loss on the validation rows no longer falls, or the reward no longer rises. "
        "Absent: all epochs are gone through; the artefact holds the best weights either way.",
    )
    compute: Compute = Field(Compute(), description="What the training pods get.")
    checkpoints: Checkpoints = Field(
        Checkpoints(),
        description="When the state of training is saved, so that another attempt goes on from there.",
    )
    workspace: Workspace | None = Field(
        None,
        description="Where work files lie: prepared data, checkpoints. Absent: below output.uri. Needed with oci:// "
        "and hf:// output, which hold artefacts only.",
    )
    output: Output = Field(description="Where the artefact is kept, and in which forms.")
    tracking: Tracking = Field(Tracking(), description="Where metrics go besides the status.")
    budget: Budget | None = Field(None, description="What the job may take, and what a GPU hour costs.")
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


FineTuneJobSpec.rules = (
    *SPEC_RULES,
    *(
        _unchanging(to_camel(name), optional=field.default is None)
        for name, field in FineTuneJobSpec.model_fields.items()
        if name not in _MUTABLE
    ),
)


_NO_REWARD_OF_ITS_OWN = (
    "self.spec.method.{}.rewards.all(r, !has(r.model) || !has(r.model.fineTuneJobRef) || "
    "r.model.fineTuneJobRef.name != self.metadata.name)"
)


class FineTuneJob(Resource):
    """Tunes a base model on your rows and keeps what comes out, by digest."""

    kind_name: ClassVar[str] = "FineTuneJob"
    plural: ClassVar[str] = "finetunejobs"
    short_name: ClassVar[str] = "ftj"

    rules: ClassVar[tuple[Rule, ...]] = (
        *Resource.rules,
        Rule(
            "!has(self.spec.baseModel.fineTuneJobRef) || self.spec.baseModel.fineTuneJobRef.name != "
            "self.metadata.name",
            "spec.baseModel.fineTuneJobRef names this job itself: write the name of an earlier one.",
            lambda job: (
                job.spec.base_model.fine_tune_job_ref is None
                or job.spec.base_model.fine_tune_job_ref.name != job.metadata.name
            ),
        ),
        Rule(
            " && ".join(
                f"(!has(self.spec.method.{method}) || {_NO_REWARD_OF_ITS_OWN.format(method)})"
                for method in ("grpo", "rloo")
            ),
            "A reward names this job itself: write the name of an earlier one, whose method is reward.",
            lambda job: (
                not any(
                    reward.model
                    and reward.model.fine_tune_job_ref
                    and reward.model.fine_tune_job_ref.name == job.metadata.name
                    for reward in job.spec.method.rewards
                )
            ),
        ),
    )

    kind: Literal["FineTuneJob"] = "FineTuneJob"
    spec: FineTuneJobSpec = Field(description="What to train, on what, and how.")
    status: FineTuneJobStatus = Field(
        FineTuneJobStatus(),
        description="How far the job is and what came out. Written by the operator alone.",
    )
