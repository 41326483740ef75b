"""EvalRun: is a candidate better than a baseline, and is nothing else worse?"""

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
from .reasons import EvalRunPhase, Verdict
from .rules import Rule, exactly_one, keyed_by
from .status import ArtifactRef, Cost, Failure
from .uris import ArtifactUri
from .values import Confidence, DigestString, Fraction, ItemName, Measured, Timestamp

_CANDIDATE_SIDES = 2


class Expect(StrEnum):
    """What a gate asks of the candidate."""

    BETTER = "Better"
    NOT_WORSE = "NotWorse"


class Prompting(StrictModel):
    """How a side is asked."""

    system_prompt: Annotated[str, Field(max_length=8192)] | None = Field(
        None,
        description="Put before every item, in place of a system message that the item has. Absent: as it "
        "is.",
    )
    few_shot: int = Field(
        0,
        ge=0,
        le=32,
        description="How many rows of fewShotFrom are shown as worked examples before each item. The same "
        "rows for every item, drawn with a fixed seed.",
    )


class BaseModelSide(StrictModel):
    """The base model without an adapter. It has no fields: write {}."""


_DIGEST_WITH_URI = Rule(
    "has(self.uri) == has(self.digest)",
    "Write uri and digest together: the digest says which bytes are meant.",
    lambda side: (side.uri is None) == (side.digest is None),
)


class Candidate(Prompting):
    """The adapter that is to prove itself."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            ("fine_tune_job_ref", "uri"),
            "Name the candidate in one way: fineTuneJobRef: {name: …}, or uri and digest.",
        ),
        _DIGEST_WITH_URI,
    )

    fine_tune_job_ref: FineTuneJobRef | None = Field(
        None, description="The artefact of this FineTuneJob. The run waits until it has succeeded."
    )
    uri: ArtifactUri | None = Field(None, description="Where the artefact lies. Needs digest.")
    digest: DigestString | None = Field(None, description="Digest of the artefact at uri.")


class Baseline(Prompting):
    """What the candidate is compared with."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            ("base", "uri"),
            "Name the baseline in one way: base: {} for the base model alone, or uri and digest.",
        ),
        _DIGEST_WITH_URI,
    )

    base: BaseModelSide | None = Field(None, description="The base model without an adapter: base: {}.")
    uri: ArtifactUri | None = Field(
        None, description="Where another adapter of the same base model lies. Needs digest."
    )
    digest: DigestString | None = Field(None, description="Digest of the artefact at uri.")


class ReferenceSide(Baseline):
    """One more side that answers the items; it is reported, and no gate reads it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *Baseline.rules,
        Rule(
            "!(self.name in ['candidate', 'baseline'])",
            "The names candidate and baseline are taken: write another one.",
            lambda side: side.name not in {"candidate", "baseline"},
        ),
    )

    name: ItemName = Field(description="Name of the side in status.sides, such as base.")


class MetricSpec(StrictModel):
    """How answers are scored."""

    type: Metric = Field(
        description="ExactMatch: 1 where the answer equals the expected one, white space at the ends aside, "
        "else 0. JSONFields: the share of the expected JSON object's fields that the answer has with the "
        "same value."
    )


class Suite(StrictModel):
    """Items that all sides answer."""

    name: ItemName = Field(description="Name that gates and results use.")
    dataset: DataSource = Field(
        description="The items. The last assistant turn (or the completion) of each row is the expected "
        "answer. Keep them out of the training data; in the evaluation of a FineTuneJob that is done for you: rows "
        "of train that are among them are left out, and counted as leaked, and so are those of validation.uri, unless "
        "they are most of it."
    )
    metrics: Annotated[tuple[MetricSpec, ...], Field(min_length=1, max_length=MAX_METRICS)] = Field(
        description="How the answers are scored.", json_schema_extra=keyed_by("type")
    )
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Use only the first so many items. Absent: all."
    )
    max_new_tokens: int = Field(256, ge=1, le=8192, description="Where an answer is cut off, in tokens.")


class Gate(StrictModel):
    """What must hold for a Pass."""

    rules = (
        Rule(
            "self.expect != 'NotWorse' || !self.margin.matches(r'^[0.]+([eE].*)?$')",
            "NotWorse needs a margin above 0: say how much worse is still good enough, such as margin: "
            '"0.02".',
            lambda gate: gate.expect is not Expect.NOT_WORSE or float(gate.margin) > 0,
        ),
    )

    suite: ItemName = Field(description="Name of one of the suites.")
    metric: Metric = Field(description="One of that suite's metrics.")
    expect: Expect = Field(
        description="Better: the candidate's lead over the baseline is above margin. NotWorse: the candidate "
        "is behind by less than margin. The whole confidence interval must say so; where it holds the margin "
        "itself, the verdict is Inconclusive."
    )
    margin: Fraction = Field("0", description='The difference that matters, as a share of 1, such as "0.05".')


class EvalCompute(StrictModel):
    """What the evaluating pod gets."""

    gpus: int = Field(1, ge=0, le=16, description="GPUs of the pod. 0: CPU only.")
    resources: Resources | None = Field(None, description="CPU and memory of the pod.")
    template: PodTemplate | None = Field(None, description="Where and as whom the pod runs.")


_GATES_NAME_SUITES = Rule(
    "self.gates.all(g, self.suites.exists(s, s.name == g.suite))",
    "A gate names a suite that is not there: write the name of one of the suites.",
    lambda spec: all(gate.suite in {suite.name for suite in spec.suites} for gate in spec.gates),
    ".gates",
)
_GATES_NAME_METRICS = Rule(
    "self.gates.all(g, !self.suites.exists(s, s.name == g.suite)"
    " || self.suites.exists(s, s.name == g.suite && s.metrics.exists(m, m.type == g.metric)))",
    "A gate names a metric that its suite does not measure: add it to the suite's metrics, or write one of "
    "them.",
    lambda spec: all(
        gate.metric in {metric.type for metric in suite.metrics}
        for gate in spec.gates
        for suite in spec.suites
        if suite.name == gate.suite
    ),
    ".gates",
)


class EvaluationTemplate(StrictModel):
    """An evaluation, all but whom it judges: the part that a FineTuneJob and an EvalRun share."""

    rules: ClassVar[tuple[Rule, ...]] = (_GATES_NAME_SUITES, _GATES_NAME_METRICS)

    baseline: Baseline = Field(
        Baseline.model_validate({"base": {}}), description="What the gates compare the candidate with."
    )
    references: Annotated[tuple[ReferenceSide, ...], Field(max_length=MAX_REFERENCES)] = Field(
        (),
        description="Further sides that answer the same items and are shown beside the two in status.sides. "
        "No gate reads them.",
        json_schema_extra=keyed_by("name"),
    )
    suites: Annotated[tuple[Suite, ...], Field(min_length=1, max_length=MAX_SUITES)] = Field(
        description="What the sides are asked.", json_schema_extra=keyed_by("name")
    )
    few_shot_from: DataSource | None = Field(
        None,
        description="Where worked examples are drawn from. Absent: the training data of the candidate's "
        "FineTuneJob, of several files the first.",
    )
    gates: Annotated[tuple[Gate, ...], Field(min_length=1, max_length=2 * MAX_SUITES * MAX_METRICS)] = Field(
        description="What must hold. All gates pass: Pass. One fails: Fail. Else: Inconclusive.",
        json_schema_extra=keyed_by("suite", "metric", "expect"),
    )
    confidence: Confidence = Field(
        "0.95", description='How sure the intervals are, such as "0.95". Higher needs more items to decide.'
    )
    compute: EvalCompute = Field(EvalCompute(), description="What the evaluating pod gets.")
    active_deadline_seconds: int = Field(
        3600,
        ge=60,
        le=604_800,
        description="The run fails when its pods have taken longer than this, in seconds.",
    )
    backoff_limit: int = Field(
        3, ge=0, le=20, description="How often a failed attempt is tried again. Preemptions do not count."
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        None,
        description="Removes the pods and Jobs so long after the end, in seconds; never the resource, its "
        "result or its report. Absent: they are kept.",
    )


class EvalRunSpec(EvaluationTemplate):
    """Who is judged, against whom, on what, and what must hold. It can't be changed: make another EvalRun."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *EvaluationTemplate.rules,
        Rule(
            "self == oldSelf", "An EvalRun can't be changed, so that its verdict stays true. Make a new one."
        ),
        Rule(
            "!has(self.candidate.uri) || has(self.fewShotFrom) || (self.candidate.fewShot == 0 && "
            "self.baseline.fewShot == 0 && self.references.all(r, r.fewShot == 0))",
            "fewShot needs rows to draw from: add fewShotFrom: {uri: …}. Only a candidate given by "
            "fineTuneJobRef brings its training data along.",
            lambda spec: (
                spec.candidate.uri is None
                or spec.few_shot_from is not None
                or not any(side.few_shot for side in (spec.candidate, spec.baseline, *spec.references))
            ),
        ),
        Rule(
            "!has(self.candidate.uri) || has(self.baseModel)",
            "A candidate given by uri and digest needs baseModel: {uri: …}.",
            lambda spec: spec.candidate.uri is None or spec.base_model is not None,
        ),
    )

    candidate: Candidate = Field(description="The adapter that is to prove itself.")
    base_model: BaseModelSource | None = Field(
        None, description="The model under all sides. Absent: that of the candidate's FineTuneJob."
    )


class SideArtifact(StatusModel):
    """What a side was."""

    uri: str = Field(max_length=512, description="Where its artefact, or the base model, lies.")
    digest: str | None = Field(
        None, max_length=128, description="Digest of the artefact, or revision of the base model."
    )


class SideResult(StatusModel):
    """How one side did by one metric."""

    side: str = Field(max_length=32, description="candidate, baseline, or the name of a reference.")
    suite: str = Field(max_length=32, description="Name of the suite.")
    metric: Metric = Field(description="The metric.")
    value: Measured = Field(description="Mean score over the items, from 0 to 1.")
    interval: Annotated[tuple[Measured, ...], Field(min_length=2, max_length=2)] = Field(
        description="Confidence interval of the mean: [low, high]."
    )


class Comparison(StatusModel):
    """Candidate against baseline by one metric, over the same items."""

    suite: str = Field(max_length=32, description="Name of the suite.")
    metric: Metric = Field(description="The metric.")
    candidate: Measured = Field(description="The candidate's mean score, from 0 to 1.")
    baseline: Measured = Field(description="The baseline's mean score, from 0 to 1.")
    delta: Measured = Field(description="Candidate minus baseline.")
    interval: Annotated[tuple[Measured, ...], Field(min_length=2, max_length=2)] = Field(
        description="Confidence interval of the paired difference: [low, high]."
    )
    p_value: Measured = Field(description="Two-sided, for no difference.")
    items: int = Field(ge=0, description="Items that both answered.")
    verdict: Verdict | None = Field(
        None, description="The worst of the gates that read it; absent without a gate."
    )


class EvalRunStatus(StatusModel):
    """What came out."""

    phase: EvalRunPhase | None = Field(None, description="How far it is, for people.")
    conditions: Conditions = ()
    observed_generation: int = Field(0, ge=0, description="The metadata.generation that status speaks of.")
    verdict: Verdict | None = Field(
        None,
        description="Pass: every gate holds. Fail: at least one does not. Inconclusive: the items can't tell "
        "yet.",
    )
    candidate: SideArtifact | None = Field(None, description="The adapter that was judged.")
    baseline: SideArtifact | None = Field(None, description="What it was compared with.")
    base_model_revision: str | None = Field(
        None, max_length=80, description="Revision of the base model under all sides."
    )
    policy_digest: str = Field(
        "",
        max_length=71,
        description="Digest of suites, their data, gates and confidence: what the verdict means.",
    )
    results: Annotated[tuple[Comparison, ...], Field(max_length=MAX_SUITES * MAX_METRICS)] = Field(
        (),
        description="Candidate against baseline, per suite and metric.",
        json_schema_extra=keyed_by("suite", "metric"),
    )
    sides: Annotated[
        tuple[SideResult, ...],
        Field(max_length=MAX_SUITES * MAX_METRICS * (_CANDIDATE_SIDES + MAX_REFERENCES)),
    ] = Field(
        (),
        description="Each side by itself, per suite and metric.",
        json_schema_extra=keyed_by("side", "suite", "metric"),
    )
    report: ArtifactRef | None = Field(None, description="Every item with all answers.")
    cost: Cost | None = Field(None, description="What it took.")
    failure: Failure | None = Field(None, description="Why it failed, in phase Failed.")
    start_time: Timestamp | None = Field(None, description="When the operator first acted on it.")
    completion_time: Timestamp | None = Field(None, description="When it ended.")
    attempts: int = Field(0, ge=0, description="Pods that were started for it.")
    disruptions: int = Field(0, ge=0, description="Attempts that ended by a preemption, not by a fault.")


class EvalRun(Resource):
    """Compares a candidate with a baseline on the same items; the verdict is Pass, Fail or Inconclusive."""

    kind_name: ClassVar[str] = "EvalRun"
    plural: ClassVar[str] = "evalruns"
    short_name: ClassVar[str] = "er"

    kind: Literal["EvalRun"] = "EvalRun"
    spec: EvalRunSpec = Field(description="Who is judged, against whom, on what, and what must hold.")
    status: EvalRunStatus = Field(
        EvalRunStatus(), description="What came out. Written by the operator alone."
    )
