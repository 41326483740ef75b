"""EvalRun resource: comparison of a candidate adapter with a baseline."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunesmith_contract.run_config import MAX_METRICS, MAX_REFERENCES, MAX_SUITES, Metric

from .common import (
    BaseModelSource,
    Conditions,
    DataSource,
    FineTuneJobRef,
    PodTemplate,
    Resource,
    Resources,
    StatusModel,
    StrictModel,
)
from .pod_settings import GPU_RESOURCE, CacheVolume, GPUResource, TrainerEnv, gpu_rules
from .reasons import EvalRunPhase, Verdict
from .rules import DIGEST_WITH_URI, Rule, exactly_one, keyed_by
from .status import ArtifactRef, ContainerRequests, Cost, Failure
from .uris import ArtifactUri
from .values import Confidence, DigestString, Fraction, GPUMemory, ItemName, Measured, Timestamp

_CANDIDATE_SIDES = 2


class Expect(StrEnum):
    """Expectation of a gate."""

    BETTER = "Better"
    NOT_WORSE = "NotWorse"


class Prompting(StrictModel):
    """Prompt settings of one evaluated model."""

    system_prompt: Annotated[str, Field(max_length=8192)] | None = Field(
        None,
        description="The system message of every item. It replaces a system message that the item already has. If"
        " unset, items are used unchanged.",
    )
    few_shot: int = Field(
        0,
        ge=0,
        le=32,
        description="The number of rows of fewShotFrom that are shown as worked examples before each item. The "
        "same rows are used for every item; they are drawn with a fixed seed.",
    )


def few_shot_needs_file(data: str, field: str) -> str:
    """Message where there is no single file to draw worked examples from.

    Args:
        data: the rows that are not a single file.
        field: the field in which to name a file instead.
    """
    return (
        f"fewShot draws examples from a single file, but {data} names a folder, a pattern or Argilla: "
        f"add {field}: {{uri: …}}."
    )


class BaseModelSide(StrictModel):
    """The base model without an adapter. It has no fields: write {}."""


class Candidate(Prompting):
    """The adapter that is evaluated."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            ("fine_tune_job_ref", "uri"),
            "Set exactly one source of the candidate: fineTuneJobRef: {name: …}, or uri and digest.",
        ),
        DIGEST_WITH_URI,
    )

    fine_tune_job_ref: FineTuneJobRef | None = Field(
        None,
        description="The FineTuneJob whose artifact is evaluated. The run waits until the job has succeeded.",
    )
    uri: ArtifactUri | None = Field(
        None, description="The location of the artifact, such as pvc://artifacts/sha256/…. Requires digest."
    )
    digest: DigestString | None = Field(None, description="The digest of the artifact at uri.")


class Baseline(Prompting):
    """The model that the candidate is compared with."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            ("base", "uri"),
            "Set exactly one baseline: base: {} for the base model without an adapter, or uri and digest.",
        ),
        DIGEST_WITH_URI,
    )

    base: BaseModelSide | None = Field(None, description="The base model without an adapter: write base: {}.")
    uri: ArtifactUri | None = Field(
        None, description="The location of another adapter of the same base model. Requires digest."
    )
    digest: DigestString | None = Field(None, description="The digest of the artifact at uri.")


class ReferenceSide(Baseline):
    """An additional model that answers the same items. Its scores are reported, but no gate uses them."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *Baseline.rules,
        Rule(
            "!(self.name in ['candidate', 'baseline'])",
            "The names candidate and baseline are reserved: choose another name.",
        ),
    )

    name: ItemName = Field(description="The name of the reference in status.sides, such as base.")


class MetricSpec(StrictModel):
    """A metric that scores answers."""

    type: Metric = Field(
        description="The metric. ExactMatch: 1 if the answer equals the expected answer, ignoring leading and "
        "trailing white space, otherwise 0. JSONFields: the share of the fields of the expected JSON "
        "object that the answer has with the same value."
    )


class Suite(StrictModel):
    """A set of items with metrics, answered by all models of the comparison."""

    name: ItemName = Field(description="The name of the suite, used by gates and results.")
    dataset: DataSource = Field(
        description="The items. The last assistant turn (or the completion) of each row is the expected answer. "
        "The items must not be in the training data. The evaluation of a FineTuneJob ensures this: "
        "rows of train that are also items are dropped and counted as leaked, and so are rows of "
        "validation.uri, unless most of it would be dropped."
    )
    metrics: Annotated[tuple[MetricSpec, ...], Field(min_length=1, max_length=MAX_METRICS)] = Field(
        description="The metrics that score the answers.", json_schema_extra=keyed_by("type")
    )
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None,
        description="The number of items to use, from the start of the dataset. If unset, all items are used.",
    )
    max_new_tokens: int = Field(
        256,
        ge=1,
        le=8192,
        description="The maximum length of an answer in tokens. Longer answers are cut off.",
    )


class Gate(StrictModel):
    """A condition on the comparison that must hold for the verdict Pass."""

    rules = (
        Rule(
            "self.expect != 'NotWorse' || !self.margin.matches(r'^[0.]+([eE].*)?$')",
            "expect: NotWorse needs a margin above 0: write the largest acceptable loss, such as margin: "
            '"0.02".',
        ),
    )

    suite: ItemName = Field(description="The name of one of the suites.")
    metric: Metric = Field(description="One of the metrics of that suite.")
    expect: Expect = Field(
        description="The expected result. Better: the candidate's lead over the baseline is greater than margin. "
        "NotWorse: the candidate is behind by less than margin. The whole confidence interval must "
        "satisfy this; if the margin lies within the interval, the verdict is Inconclusive."
    )
    margin: Fraction = Field(
        "0", description='The relevant difference of the scores, between 0 and 1, such as "0.05".'
    )


class EvalCompute(StrictModel):
    """Compute resources of the evaluation pod."""

    rules = gpu_rules("gpus")

    gpus: int = Field(
        1,
        ge=0,
        le=16,
        description="The number of GPUs of the pod. If one GPU has room for the model in bfloat16, each can hold a "
        "copy and answer its share of the items. A copy of a larger model is spread over several GPUs, which work one "
        "after the other: the condition Fits says how many a copy takes at least, and a multiple of it is used "
        "best. Set it to 0 to evaluate on CPUs only.",
    )
    gpu_memory: GPUMemory = Field(
        "Auto",
        description="The memory of one GPU, such as 24Gi. An evaluation that does not fit into it fails before it "
        "requests a GPU. Auto: taken from the labels of the nodes that the pod may be scheduled to.",
    )
    gpu_resource: GPUResource = GPU_RESOURCE
    resources: Resources | None = Field(
        None,
        description="CPU and memory requests and limits of the pod. A CPU limit is also the number of threads.",
    )
    template: PodTemplate | None = Field(
        None, description="Scheduling, service account and image pull secrets of the pod."
    )
    env: TrainerEnv = ()
    cache_volume: CacheVolume | None = Field(
        None,
        description="A PersistentVolumeClaim that keeps models downloaded from the Hugging Face Hub for later pods. If "
        "unset, each pod downloads them again. If the volume cannot be used, the pod downloads without it.",
    )


_GATES_NAME_SUITES = Rule(
    "self.gates.all(g, self.suites.exists(s, s.name == g.suite))",
    "A gate names a suite that does not exist: write the name of one of the suites.",
    field=".gates",
)
_GATES_NAME_METRICS = Rule(
    "self.gates.all(g, !self.suites.exists(s, s.name == g.suite)"
    " || self.suites.exists(s, s.name == g.suite && s.metrics.exists(m, m.type == g.metric)))",
    "A gate names a metric that its suite does not measure: add it to the suite's metrics, or write one of "
    "them.",
    field=".gates",
)


class EvaluationTemplate(StrictModel):
    """Settings of an evaluation except its candidate, shared by FineTuneJob and EvalRun."""

    rules: ClassVar[tuple[Rule, ...]] = (_GATES_NAME_SUITES, _GATES_NAME_METRICS)

    baseline: Baseline = Field(
        Baseline.model_validate({"base": {}}),
        description="The model that the gates compare the candidate with.",
    )
    references: Annotated[tuple[ReferenceSide, ...], Field(max_length=MAX_REFERENCES)] = Field(
        (),
        description="Additional models that answer the same items and are reported in status.sides. Gates do not "
        "use them.",
        json_schema_extra=keyed_by("name"),
    )
    suites: Annotated[tuple[Suite, ...], Field(min_length=1, max_length=MAX_SUITES)] = Field(
        description="The items to answer, with their metrics.", json_schema_extra=keyed_by("name")
    )
    few_shot_from: DataSource | None = Field(
        None,
        description="The rows from which worked examples are drawn. If unset, the training data of the "
        "candidate's FineTuneJob is used; if that has several files, the first one.",
    )
    gates: Annotated[tuple[Gate, ...], Field(min_length=1, max_length=2 * MAX_SUITES * MAX_METRICS)] = Field(
        description="The conditions for the verdict. Pass: all gates hold. Fail: at least one gate is violated. "
        "Inconclusive: otherwise.",
        json_schema_extra=keyed_by("suite", "metric", "expect"),
    )
    confidence: Confidence = Field(
        "0.95",
        description='The confidence level of the intervals, such as "0.95". A higher level needs more items to '
        "reach a verdict.",
    )
    compute: EvalCompute = Field(EvalCompute(), description="Compute resources of the evaluation pod.")
    active_deadline_seconds: int = Field(
        3600,
        ge=60,
        le=604_800,
        description="The maximum total duration of the pods in seconds. The run fails when it is exceeded.",
    )
    backoff_limit: int = Field(
        3, ge=0, le=20, description="The number of retries after failed attempts. Preemptions do not count."
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        None,
        description="The time in seconds after which pods and Jobs of a finished run are deleted. The resource, "
        "its result and its report are never deleted. If unset, pods and Jobs are kept.",
    )


class EvalRunSpec(EvaluationTemplate):
    """Specification of an EvalRun. It is immutable: create another EvalRun instead."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *EvaluationTemplate.rules,
        Rule(
            "self == oldSelf",
            "An EvalRun can't be changed, so that its verdict stays valid. Create a new EvalRun.",
        ),
        Rule(
            "!has(self.candidate.uri) || has(self.fewShotFrom) || (self.candidate.fewShot == 0 && "
            "self.baseline.fewShot == 0 && self.references.all(r, r.fewShot == 0))",
            "fewShot needs rows to draw examples from: add fewShotFrom: {uri: …}. The default, the "
            "training data, is known only for a candidate given by fineTuneJobRef.",
        ),
        Rule(
            "!has(self.candidate.uri) || has(self.baseModel)",
            "A candidate given by uri and digest needs baseModel: {uri: …}.",
            lambda spec: spec.candidate.uri is None or spec.base_model is not None,
        ),
    )

    candidate: Candidate = Field(description="The adapter that is evaluated.")
    base_model: BaseModelSource | None = Field(
        None,
        description="The base model of all compared models. If unset, the base model of the candidate's "
        "FineTuneJob is used.",
    )


class SideArtifact(StatusModel):
    """The artifact or base model that took part in a comparison."""

    uri: str = Field(max_length=512, description="The location of the artifact or base model.")
    digest: str | None = Field(
        None, max_length=128, description="The digest of the artifact, or the revision of the base model."
    )


class SideResult(StatusModel):
    """The score of one model by one metric."""

    side: str = Field(
        max_length=32, description="The model: candidate, baseline, or the name of a reference."
    )
    suite: str = Field(max_length=32, description="The name of the suite.")
    metric: Metric = Field(description="The metric.")
    value: Measured = Field(description="The mean score of the items, from 0 to 1.")
    interval: Annotated[tuple[Measured, ...], Field(min_length=2, max_length=2)] = Field(
        description="The confidence interval of the mean score: [low, high]."
    )


class Comparison(StatusModel):
    """The comparison of candidate and baseline by one metric, over the same items."""

    suite: str = Field(max_length=32, description="The name of the suite.")
    metric: Metric = Field(description="The metric.")
    candidate: Measured = Field(description="The mean score of the candidate, from 0 to 1.")
    baseline: Measured = Field(description="The mean score of the baseline, from 0 to 1.")
    delta: Measured = Field(description="The mean score of the candidate minus that of the baseline.")
    interval: Annotated[tuple[Measured, ...], Field(min_length=2, max_length=2)] = Field(
        description="The confidence interval of the paired difference: [low, high]."
    )
    p_value: Measured = Field(
        description="The two-sided p-value of the hypothesis that there is no difference."
    )
    items: int = Field(ge=0, description="The number of items that both models answered.")
    verdict: Verdict | None = Field(
        None,
        description="The worst verdict of the gates on this metric. It is absent if there is no gate on it.",
    )


class EvalRunStatus(StatusModel):
    """Observed state of an EvalRun."""

    phase: EvalRunPhase | None = Field(
        None, description="A summary of the state for people. Tools should use the conditions."
    )
    conditions: Conditions = ()
    observed_generation: int = Field(
        0, ge=0, description="The metadata.generation that this status describes."
    )
    verdict: Verdict | None = Field(
        None,
        description="The result of the comparison. Pass: all gates hold. Fail: at least one gate is violated. "
        "Inconclusive: there are too few items to decide.",
    )
    candidate: SideArtifact | None = Field(None, description="The adapter that was evaluated.")
    baseline: SideArtifact | None = Field(None, description="The model that the candidate was compared with.")
    base_model_revision: str | None = Field(
        None, max_length=80, description="The revision of the base model of all compared models."
    )
    policy_digest: str = Field(
        "",
        max_length=71,
        description="The digest of the suites, their data, the gates and the confidence. Verdicts with the same "
        "digest have the same meaning.",
    )
    results: Annotated[tuple[Comparison, ...], Field(max_length=MAX_SUITES * MAX_METRICS)] = Field(
        (),
        description="The comparison of candidate and baseline, for each suite and metric.",
        json_schema_extra=keyed_by("suite", "metric"),
    )
    sides: Annotated[
        tuple[SideResult, ...],
        Field(max_length=MAX_SUITES * MAX_METRICS * (_CANDIDATE_SIDES + MAX_REFERENCES)),
    ] = Field(
        (),
        description="The score of each model, for each suite and metric.",
        json_schema_extra=keyed_by("side", "suite", "metric"),
    )
    report: ArtifactRef | None = Field(None, description="The report with every item and all answers.")
    requests: ContainerRequests | None = Field(
        None, description="The resources that are reserved for the container of the evaluation pod."
    )
    cost: Cost | None = Field(None, description="The GPU time that the run used.")
    failure: Failure | None = Field(None, description="The cause of the failure, in phase Failed.")
    start_time: Timestamp | None = Field(
        None, description="The time at which the operator first acted on the run."
    )
    completion_time: Timestamp | None = Field(None, description="The time at which the run ended.")
    attempts: int = Field(0, ge=0, description="The number of pods started for the run.")
    disruptions: int = Field(
        0, ge=0, description="The number of attempts that ended by a preemption and not by a fault."
    )


class EvalRun(Resource):
    """EvalRun compares a candidate adapter with a baseline on the same items.

    The verdict is Pass, Fail or Inconclusive.
    """

    kind_name: ClassVar[str] = "EvalRun"
    plural: ClassVar[str] = "evalruns"
    short_name: ClassVar[str] = "er"

    kind: Literal["EvalRun"] = "EvalRun"
    spec: EvalRunSpec = Field(
        description="The desired state: the candidate, the baseline, the items, and the gates. It is immutable."
    )
    status: EvalRunStatus = Field(
        EvalRunStatus(), description="The observed state. It is written by the operator only."
    )
