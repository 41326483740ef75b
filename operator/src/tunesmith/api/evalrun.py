"""EvalRun resource: comparison of a candidate with a baseline."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunesmith_contract.evaluation import (
    MAX_GATES,
    MAX_REFERENCES,
    MAX_RESULTS,
    MAX_SUITES,
    SAFETY_SUITE,
    Engine,
    Expect,
    Metric,
    Tier,
)
from tunesmith_contract.safety import HARMLESS_SUITE, SAFETY_NEW_TOKENS
from tunesmith_contract.shared_rules.verdict import Verdict

from .common import (
    BaseModelSource,
    Conditions,
    Resource,
    Resources,
    Reuse,
    SecretName,
    StatusModel,
    StrictModel,
)
from .evaluation_sides import Baseline, Candidate, ReferenceSide, TokenPrices
from .evaluation_suites import Gate, JudgeSettings, Suite
from .pod_settings import CacheVolume, GPUResource, TrainerEnv, gpu_rules
from .pod_template import PodTemplate
from .reasons import EvalRunPhase
from .rules import Rule, keyed_by
from .sources import STORE_KEYS
from .status import ArtifactRef, ContainerRequests, Cost, Failure
from .uris import ValidationDataUri, WorkspaceUri
from .values import Confidence, DecimalString, GPUMemory, Measured, SafetyMargin, Timestamp

_CANDIDATE_SIDES = 2


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
        "best. Set it to 0 to evaluate on CPUs only. If all compared models answer from endpoints or stored answers, "
        "the pod requests no GPU.",
    )
    gpu_memory: GPUMemory = Field(
        "Auto",
        description="The memory of one GPU, such as 24Gi. An evaluation that does not fit into it fails before it "
        "requests a GPU. Auto: taken from the labels of the nodes that the pod may be scheduled to.",
    )
    gpu_resource: GPUResource = None
    resources: Resources | None = Field(
        None,
        description="CPU and memory requests and limits of the pod. A CPU limit is also the number of threads. With "
        "engine: VLLM they are those of the engine's container. Other containers of the pod get limits of the same "
        "resources.",
    )
    evaluator_resources: Resources | None = Field(
        None,
        description="With engine: VLLM, CPU and memory requests and limits of the container that asks the engine and "
        "scores the answers. If unset, it requests 500m and 1Gi.",
    )
    sandbox_resources: Resources | None = Field(
        None,
        description="CPU and memory requests and limits of the container that runs the code of answers. If unset, it "
        "requests 250m and 512Mi, and is limited to 4Gi of memory.",
    )
    template: PodTemplate | None = Field(
        None, description="Labels, scheduling, volumes and service account of the pod."
    )
    env: TrainerEnv = ()
    cache_volume: CacheVolume | None = Field(
        None,
        description="A PersistentVolumeClaim that keeps models downloaded from the Hugging Face Hub for later pods. If "
        "unset, each pod downloads them again. If the volume cannot be used, the pod downloads without it.",
    )


class Safety(StrictModel):
    """The built-in suites on safety: refusal of harmful requests, and help with harmless ones that resemble them."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.disabled || has(self.reason)",
            "Switching off the safety suites needs a reason for people: write reason: …. Ten examples can undo what a "
            "model learned to refuse.",
        ),
    )

    disabled: bool = Field(
        False,
        description="If true, the suites are left out. Even harmless training data can undo what a model learned to "
        "refuse (arXiv:2310.03693), so they are NotWorse gates of every run unless they are switched off.",
    )
    reason: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None,
        description="The reason for which they are switched off. It is shown in status and in the report.",
    )
    margin: SafetyMargin = Field(
        "0.1",
        description='The largest acceptable loss of the score of either suite, such as "0.1". Each has 72 items, with '
        "which smaller margins are hardly ever proved. At most 0.25: a larger one would all but switch them off.",
    )
    max_new_tokens: int = Field(
        SAFETY_NEW_TOKENS,
        ge=16,
        le=32_768,
        description="The maximum length of an answer in tokens, thinking included. Models that think need more: an "
        "answer whose thinking does not end has no score.",
    )
    judge: JudgeSettings | None = Field(
        None,
        description="A judge of refusals. If unset, refusals are recognized by their words. Each suite has half "
        "of its budget.",
    )


class ExampleRows(StrictModel):
    """Rows from which worked examples are drawn."""

    uri: ValidationDataUri = Field(
        description="The location of the rows, in the forms of suites.dataset.uri."
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


class AdviceSettings(StrictModel):
    """Facts about the use of the model, for status.advice."""

    bar: DecimalString | None = Field(
        None,
        description='The score that is needed, such as "0.9". The gap to it is told in per cent. If unset, the gap to '
        "the best other model is told.",
    )
    examples: Annotated[int, Field(ge=0)] | None = Field(
        None, description="The number of training examples at hand."
    )
    latency_budget_seconds: DecimalString | None = Field(
        None, description='The time that an answer may take, such as "2".'
    )
    requests_per_month: Annotated[int, Field(ge=1)] | None = Field(
        None, description="The number of requests that are expected."
    )
    training_cost: DecimalString | None = Field(
        None,
        description='The cost of a training run, such as "40". With prices and those of an endpoint, it is told after '
        "how many requests training pays for itself.",
    )
    prices: TokenPrices | None = Field(
        None, description="The prices at which the tuned model will be served."
    )


_SAFETY_NAMES = f"['{SAFETY_SUITE}', '{HARMLESS_SUITE}']"
_METRIC = "(has(m.name) ? m.name : m.type)"

_GATES_NAME_SUITES = Rule(
    f"self.gates.all(g, g.suite in {_SAFETY_NAMES} || self.suites.exists(s, s.name == g.suite))",
    "A gate names a suite that does not exist: write the name of one of the suites.",
    field=".gates",
)
_GATES_NAME_METRICS = Rule(
    "self.gates.all(g, !self.suites.exists(s, s.name == g.suite)"
    f" || self.suites.exists(s, s.name == g.suite && s.metrics.exists(m, {_METRIC} == g.metric)))"
    f" && self.gates.all(g, !(g.suite in {_SAFETY_NAMES}) || g.metric == '{Metric.SAFE_ANSWER}')",
    "A gate names a metric that its suite does not measure: add it to the suite's metrics, or write one of "
    "them.",
    field=".gates",
)
_RESULTS = Rule(
    f"self.suites.map(s, s.metrics.size()).sum() <= {MAX_RESULTS - 2}",
    f"All suites together may have {MAX_RESULTS - 2} metrics: leave some out, or create several EvalRuns.",
    field=".suites",
)
_ONE_BLOCKS = Rule(
    "self.gates.exists(g, !has(g.tier) || g.tier == 'Blocking')",
    "At least one gate must decide the verdict: write tier: Blocking, or leave tier out.",
    field=".gates",
)
_TIER = "(has({0}.tier) ? {0}.tier : 'Blocking')"
_GATES_DIFFER = Rule(
    "self.gates.all(g, self.gates.exists_one(o, o.suite == g.suite && o.metric == g.metric && o.expect == g.expect && "
    f"{_TIER.format('o')} == {_TIER.format('g')}))",
    "Two gates have the same suite, metric, expect and tier: leave one of them out.",
    field=".gates",
)
_NO_GATE_ON_NO_SUITE = Rule(
    f"!self.safety.disabled || self.gates.all(g, !(g.suite in {_SAFETY_NAMES}))",
    "A gate names a safety suite, which is switched off: remove the gate, or safety.disabled.",
    field=".gates",
)
_SAFETY_IS_RESERVED = Rule(
    f"self.suites.all(s, !(s.name in {_SAFETY_NAMES}))",
    "The names safety and safety-harmless belong to the built-in suites: choose another name.",
    field=".suites",
)


class EvaluationTemplate(StrictModel):
    """Settings of an evaluation except its candidate, shared by FineTuneJob and EvalRun."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _GATES_NAME_SUITES,
        _GATES_NAME_METRICS,
        _RESULTS,
        _ONE_BLOCKS,
        _GATES_DIFFER,
        _NO_GATE_ON_NO_SUITE,
        _SAFETY_IS_RESERVED,
    )

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
    suites: Annotated[tuple[Suite, ...], Field(min_length=1, max_length=MAX_SUITES - 2)] = Field(
        description="The items to answer, with their metrics.", json_schema_extra=keyed_by("name")
    )
    safety: Safety = Field(Safety(), description="The built-in suite on safety, with its gate.")
    few_shot_from: ExampleRows | None = Field(
        None,
        description="The rows from which worked examples are drawn. If unset, the prepared training rows of the "
        "candidate's FineTuneJob are used, from which items of all suites have been removed.",
    )
    gates: Annotated[tuple[Gate, ...], Field(min_length=1, max_length=MAX_GATES - 2)] = Field(
        description="The conditions for the verdict. Pass: all blocking gates hold. Fail: at least one is violated, "
        "after correction for their number (Holm). Inconclusive: otherwise.",
    )
    confidence: Confidence = Field(
        "0.95",
        description='The confidence level of the intervals, such as "0.95". A higher level needs more items to '
        "reach a verdict.",
    )
    seed: int = Field(
        42,
        ge=0,
        le=2_147_483_647,
        description="The seed of sampled items, worked examples and sampled answers.",
    )
    engine: Engine = Field(
        Engine.TRANSFORMERS,
        description="The program that answers for models whose weights the pod reads. VLLM: the serving engine, with "
        "all adapters of a base model at once.",
    )
    parallelism: int = Field(
        1,
        ge=1,
        le=64,
        description="The number of pods that share the items, each with compute's resources. All of them write to the "
        "workspace: a bucket, or a ReadWriteMany claim. If they share a ReadWriteOnce claim they run on one node.",
    )
    advice: AdviceSettings | None = Field(
        None,
        description="Facts about the use of the model. With them, status.advice says in numbers whether fine-tuning is "
        "worth it.",
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


_NAMES_ITS_BASE = (
    "(has({0}.fineTuneJobRef) || has({0}.adapterDeploymentRef) || has({0}.model) || has({0}.endpoint) || "
    "has({0}.answers))"
)
_GIVES_ITS_BASE = "has(self.candidate.fineTuneJobRef) || has(self.candidate.adapterDeploymentRef)"


class ReportOutput(StrictModel):
    """The storage of the report and of all answers."""

    uri: WorkspaceUri = Field(
        description="The location below which the report is written: pvc://claim/folder on a claim that the pod can "
        "write to, s3://bucket/folder, gs://bucket/folder or az://container/folder."
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


class EvalRunSpec(EvaluationTemplate):
    """Specification of an EvalRun. It is immutable: create another EvalRun instead."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *EvaluationTemplate.rules,
        Rule(
            "self == oldSelf",
            "An EvalRun can't be changed, so that its verdict stays valid. Create a new EvalRun.",
        ),
        Rule(
            "has(self.candidate.fineTuneJobRef) || has(self.fewShotFrom) || (self.candidate.fewShot == 0 && "
            "self.baseline.fewShot == 0 && self.references.all(r, !has(r.fewShot) || r.fewShot == 0))",
            "fewShot needs rows to draw examples from: add fewShotFrom: {uri: …}. The default, the "
            "training data, is known only for a candidate given by fineTuneJobRef.",
        ),
        Rule(
            f"has(self.baseModel) || {_GIVES_ITS_BASE} || ("
            f"{_NAMES_ITS_BASE.format('self.candidate')} && {_NAMES_ITS_BASE.format('self.baseline')} && "
            f"self.references.all(r, {_NAMES_ITS_BASE.format('r')}))",
            "A model that is the base model, or an artifact given by uri and digest, needs baseModel: {uri: …}.",
            lambda spec: not _needs_base_model(spec),
        ),
        Rule(
            f"has(self.output) || {_GIVES_ITS_BASE} || (has(self.candidate.uri) && "
            "self.candidate.uri.matches('^(pvc|s3|gs|az)://') && !self.candidate.uri.matches('/checkpoint-[0-9]+/?$'))",
            "The report needs a place: add output: {uri: pvc://claim/folder} (or s3://, gs://, az://). The default, "
            "beside the artifact of the candidate, is known only for an artifact on a claim or in a bucket.",
        ),
    )

    candidate: Candidate = Field(description="The model that is evaluated.")
    base_model: BaseModelSource | None = Field(
        None,
        description="The base model of compared models that name none. If unset, the base model of the candidate's "
        "FineTuneJob, or of the AdapterDeployment that serves it, is used.",
    )
    output: ReportOutput | None = Field(
        None,
        description="The storage of the report and of all answers. If unset, they are written beside the artifact of "
        "the candidate; if that lies in a registry or on a hub, to the workspace of its FineTuneJob. Required if "
        "neither is known, such as for an endpoint.",
    )
    reuse: Reuse = Field(
        Reuse.IF_UNCHANGED,
        description="The use of the finished work of an earlier EvalRun of the same name and spec that was deleted. "
        "IfUnchanged: if the pod finds the same items, models and prompts, and the answers are still stored, the run "
        "takes the results over with their time; the condition Adopted tells it. Never: all models answer again.",
    )


def _needs_base_model(spec: EvalRunSpec) -> bool:
    """True if a compared model stands on a base model that nothing names."""
    candidate = spec.candidate
    if spec.base_model or candidate.fine_tune_job_ref or candidate.adapter_deployment_ref:
        return False
    sides = (candidate, spec.baseline, *spec.references)
    return any(side.base is not None or side.uri is not None for side in sides)


class SideArtifact(StatusModel):
    """The source of a compared model."""

    uri: str = Field(
        max_length=800,
        description="The location of the artifact, checkpoint, model or stored answers; of an endpoint, its URL and "
        "the name of the model.",
    )
    digest: str | None = Field(
        None,
        max_length=128,
        description="The digest of the artifact, checkpoint or stored answers, or the revision of the model. It is "
        "absent for an endpoint.",
    )
    served_as: str | None = Field(
        None,
        max_length=300,
        description="The alias whose version it was at the start of the run: the names of AdapterDeployment and "
        "adapter, with a slash between them.",
    )


class ReferenceArtifact(SideArtifact):
    """The source of a reference."""

    name: str = Field(max_length=32, description="The name of the reference.")


class EvaluationCost(Cost):
    """GPU time, tokens and money that the run used."""

    prompt_tokens: int | None = Field(
        None, ge=0, description="The tokens of all prompts, of all compared models."
    )
    completion_tokens: int | None = Field(
        None, ge=0, description="The tokens of all answers, of all compared models."
    )
    amount: Measured | None = Field(
        None, description="The cost of endpoints and judges, by their prices. It is absent without prices."
    )
    currency: str | None = Field(None, max_length=3, description="The currency of the amount.")


class SideResult(StatusModel):
    """The score of one model by one metric."""

    side: str = Field(
        max_length=32, description="The model: candidate, baseline, or the name of a reference."
    )
    suite: str = Field(max_length=32, description="The name of the suite.")
    metric: str = Field(max_length=40, description="The name of the metric.")
    value: Measured = Field(description="The mean score of the items, from 0 to 1.")
    interval: Annotated[tuple[Measured, ...], Field(min_length=2, max_length=2)] = Field(
        description="The confidence interval of the mean score: [low, high]."
    )


class Comparison(StatusModel):
    """The comparison of candidate and baseline by one metric, over the same items."""

    suite: str = Field(max_length=32, description="The name of the suite.")
    metric: str = Field(max_length=40, description="The name of the metric.")
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


class GateStatus(StatusModel):
    """The result of one gate."""

    suite: str = Field(max_length=32, description="The name of the suite.")
    metric: str = Field(max_length=40, description="The name of the metric.")
    expect: Expect = Field(description="The expected result.")
    tier: Tier = Field(description="Blocking or Advisory.")
    verdict: Verdict = Field(description="The verdict of this gate.")
    threshold: Measured = Field(description="The difference that the gate asks for.")
    p_pass: Measured = Field(
        description="The one-sided p-value of the hypothesis that the difference does not exceed the threshold."
    )
    p_fail: Measured = Field(
        description="The one-sided p-value of the hypothesis that the difference is not below the threshold."
    )
    p_fail_corrected: Measured = Field(
        description="The value of pFail, corrected for the number of blocking gates (Holm)."
    )
    more_items: int | None = Field(
        None,
        ge=0,
        description="The number of further items that would probably decide an Inconclusive gate. It is absent if no "
        "number would, because the difference is as good as the threshold.",
    )
    message: str = Field("", max_length=512, description="The result in a sentence.")


class SuiteStatus(StatusModel):
    """The items of one suite."""

    name: str = Field(max_length=32, description="The name of the suite.")
    items: int = Field(ge=0, description="The number of items of the data, after sampling.")
    leaked: int = Field(
        0, ge=0, description="The items left out because a compared model was trained on them."
    )
    broken: int = Field(
        0,
        ge=0,
        description="The items that some model could not answer: too long, refused, or never answered.",
    )
    truncated: int = Field(0, ge=0, description="The answers that were cut off at maxNewTokens.")
    incomplete: int = Field(0, ge=0, description="The answers whose thinking never ended.")


class EvaluationProgress(StatusModel):
    """Progress of the run."""

    percent: str = Field(
        "", max_length=8, description="The share of the answers that are there, such as 45%."
    )
    remaining: str = Field("", max_length=16, description="The estimated remaining time, such as 5m.")
    answers: str = Field("", max_length=32, description="The number of answers out of all, such as 450/1000.")
    tokens: int | None = Field(None, ge=0, description="The tokens of all answers so far.")
    updated: Timestamp | None = Field(None, description="The time of the last message of the pod.")


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
        "Inconclusive: the items do not decide.",
    )
    candidate: SideArtifact | None = Field(None, description="The model that was evaluated.")
    baseline: SideArtifact | None = Field(None, description="The model that the candidate was compared with.")
    references: Annotated[tuple[ReferenceArtifact, ...], Field(max_length=MAX_REFERENCES)] = Field(
        (), description="The additional models.", json_schema_extra=keyed_by("name")
    )
    base_model_revision: str | None = Field(
        None, max_length=80, description="The revision of the base model of the run."
    )
    policy_digest: str = Field(
        "",
        max_length=71,
        description="The digest of all that decides: suites and their data, metrics, gates, confidence, decoding, "
        "seed, baseline, prompts and worked examples. Verdicts with the same digest have the same meaning.",
    )
    results: Annotated[tuple[Comparison, ...], Field(max_length=MAX_RESULTS)] = Field(
        (),
        description="The comparison of candidate and baseline, for each suite and metric.",
        json_schema_extra=keyed_by("suite", "metric"),
    )
    sides: Annotated[
        tuple[SideResult, ...],
        Field(max_length=MAX_RESULTS * (_CANDIDATE_SIDES + MAX_REFERENCES)),
    ] = Field(
        (),
        description="The score of each model, for each suite and metric.",
        json_schema_extra=keyed_by("side", "suite", "metric"),
    )
    change: str = Field(
        "",
        max_length=64,
        description="The change by the metric of the first blocking gate that expects Better, or else of the first "
        "gate, such as +0.12 ±0.03 ExactMatch.",
    )
    table: str = Field(
        "",
        max_length=8192,
        description="The results as a table for people, as kubectl describe shows it. Tools should use the other "
        "fields.",
    )
    gates: Annotated[tuple[GateStatus, ...], Field(max_length=MAX_GATES)] = Field(
        (),
        description="The result of each gate.",
        json_schema_extra=keyed_by("suite", "metric", "expect", "tier"),
    )
    suites: Annotated[tuple[SuiteStatus, ...], Field(max_length=MAX_SUITES)] = Field(
        (), description="The items of each suite.", json_schema_extra=keyed_by("name")
    )
    progress: EvaluationProgress | None = Field(
        None, description="The progress, while the run answers items."
    )
    runs: int | None = Field(
        None,
        ge=1,
        description="The number of runs of this candidate by this policy so far, this one included. The newest counts.",
    )
    advice: str = Field(
        "",
        max_length=2048,
        description="The answer in numbers to the question of fine-tuning, by spec.advice.",
    )
    report: ArtifactRef | None = Field(
        None, description="The report (report.json). Its pages for people lie beside it."
    )
    answers: ArtifactRef | None = Field(
        None, description="Every item with all answers (items.jsonl). Another run can score them anew."
    )
    requests: ContainerRequests | None = Field(
        None, description="The resources that are reserved for the container of the evaluation pod."
    )
    cost: EvaluationCost | None = Field(None, description="The GPU time, tokens and money that the run used.")
    notes: Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=8)] = Field(
        (),
        description="Facts that the verdict alone does not tell, such as a safety suite that is switched off.",
    )
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
    """EvalRun compares a candidate model with a baseline on the same items.

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
