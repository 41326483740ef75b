"""FineTuneJob resource: tuning of a base model into an artifact identified by its digest."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.alias_generators import to_camel

from .combinations import SPEC_RULES
from .common import Resource, Reuse, StrictModel
from .compute import Compute
from .evalrun import EvaluationTemplate
from .evaluation_sides import Prompting
from .job_status import FineTuneJobStatus
from .methods import Method
from .outputs import Budget, Checkpoints, Output, Tracking, Workspace
from .recipe import Adapter, EarlyStopping, Hyperparameters
from .rules import Rule
from .search import MAX_SEARCH_NAME, Search
from .sources import BaseModel, Dataset


class JobEvaluation(EvaluationTemplate):
    """Evaluation that runs after training, as an EvalRun whose candidate is the artifact of the job."""

    candidate: Prompting = Field(Prompting(), description="Prompt settings of the tuned model.")


_MUTABLE = frozenset({"suspend", "active_deadline_seconds", "ttl_seconds_after_finished"})


def _immutable(name: str, optional: bool) -> Rule:
    """Rule that a member can't be changed, declared on its parent to cover adding and removing it."""
    new, old = f"self.{name}", f"oldSelf.{name}"
    same = f"has({new}) == has({old}) && (!has({new}) || {new} == {old})" if optional else f"{new} == {old}"
    return Rule(
        same,
        f"{name} can't be changed after the job is created. Create a new FineTuneJob; only suspend, "
        "activeDeadlineSeconds and ttlSecondsAfterFinished may change.",
        field=f".{name}",
    )


class FineTuneJobSpec(StrictModel):
    """Specification of a FineTuneJob. Only suspend, activeDeadlineSeconds and ttlSecondsAfterFinished may change."""

    base_model: BaseModel = Field(
        description="The model to tune. Exactly one of uri and fineTuneJobRef must be set."
    )
    dataset: Dataset = Field(description="The training and validation rows, and how they are cleaned.")
    method: Method = Field(
        description="The training method. Exactly one member must be set, such as sft: {}."
    )
    adapter: Adapter | None = Field(
        None,
        description="The adapter to train. `adapter: {}` trains a LoRA adapter with the defaults. If unset, all "
        "weights of the model are trained, which takes several times the memory; the result is then a"
        " complete model.",
    )
    hyperparameters: Hyperparameters = Field(
        Hyperparameters(), description="The hyperparameters of training."
    )
    early_stopping: EarlyStopping | None = Field(
        None,
        description="Stops training when the loss on the validation rows no longer falls, or the reward no longer"
        " rises. If unset, training runs for all epochs. The artifact holds the best weights in both "
        "cases.",
    )
    compute: Compute = Field(Compute(), description="Compute resources of the training pods.")
    checkpoints: Checkpoints = Field(
        Checkpoints(),
        description="The checkpoint schedule. Another attempt resumes from the latest checkpoint.",
    )
    workspace: Workspace | None = Field(
        None,
        description="The storage for work files: prepared data and checkpoints. If unset, they are kept below "
        "output.uri. Required if output.uri is an oci:// or hf:// URI, which can hold artifacts only.",
    )
    output: Output = Field(description="The storage of the artifact, and its formats.")
    tracking: Tracking = Field(
        Tracking(), description="Experiment trackers that receive metrics in addition to the status."
    )
    budget: Budget | None = Field(None, description="A limit of GPU hours, and the price of a GPU hour.")
    search: Search | None = Field(
        None,
        description="A search for hyperparameters: trials with other values, of which the one with the lowest "
        "validation loss becomes the result. If unset, the job trains once.",
    )
    evaluation: JobEvaluation | None = Field(
        None,
        description="An evaluation of the artifact. An EvalRun with the name of this job is created when training"
        " has succeeded.",
    )
    reuse: Reuse = Field(
        Reuse.IF_UNCHANGED,
        description="The use of finished work of an earlier FineTuneJob of the same name and spec that was deleted. "
        "IfUnchanged: if preparation finds the same rows and base model, and the artifact is still stored, the job "
        "takes the artifact over and does not train; the condition Adopted tells it. Never: the job trains.",
    )
    suspend: bool = Field(
        False,
        description="If true, the pods are stopped after a checkpoint. Setting it back to false resumes training "
        "from there.",
    )
    backoff_limit: int = Field(
        3, ge=0, le=20, description="The number of retries after failed attempts. Preemptions do not count."
    )
    active_deadline_seconds: Annotated[int, Field(ge=60, le=31_536_000)] | None = Field(
        None,
        description="The maximum duration of the job in seconds. The job fails when it is exceeded. If unset, "
        "there is no limit.",
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        None,
        description="The time in seconds after which pods and Jobs of a finished job are deleted. The resource "
        "and the artifact are never deleted. If unset, pods and Jobs are kept.",
    )


FineTuneJobSpec.rules = (
    *SPEC_RULES,
    *(
        _immutable(to_camel(name), optional=field.default is None)
        for name, field in FineTuneJobSpec.model_fields.items()
        if name not in _MUTABLE
    ),
)


_NO_REWARD_NAMES_ITSELF = (
    "self.spec.method.{}.rewards.all(r, !has(r.model) || !has(r.model.fineTuneJobRef) || "
    "r.model.fineTuneJobRef.name != self.metadata.name)"
)


class FineTuneJob(Resource):
    """FineTuneJob tunes a base model on rows of data and stores the result as an artifact identified by its digest."""

    kind_name: ClassVar[str] = "FineTuneJob"
    plural: ClassVar[str] = "finetunejobs"
    short_name: ClassVar[str] = "ftj"

    rules: ClassVar[tuple[Rule, ...]] = (
        *Resource.rules,
        Rule(
            "!has(self.spec.baseModel.fineTuneJobRef) || self.spec.baseModel.fineTuneJobRef.name != "
            "self.metadata.name",
            "spec.baseModel.fineTuneJobRef names this job itself: write the name of an earlier job.",
        ),
        Rule(
            f"!has(self.spec.search) || self.metadata.name.size() <= {MAX_SEARCH_NAME}",
            f"With search, metadata.name must have at most {MAX_SEARCH_NAME} characters: the names of trials are "
            "derived from it.",
        ),
        Rule(
            " && ".join(
                f"(!has(self.spec.method.{method}) || {_NO_REWARD_NAMES_ITSELF.format(method)})"
                for method in ("grpo", "rloo")
            ),
            "A reward names this job itself: write the name of an earlier job whose method is reward.",
        ),
    )

    kind: Literal["FineTuneJob"] = "FineTuneJob"
    spec: FineTuneJobSpec = Field(
        description="The desired state: the model, the data, the method, and the output."
    )
    status: FineTuneJobStatus = Field(
        FineTuneJobStatus(),
        description="The observed state. It is written by the operator only.",
    )
