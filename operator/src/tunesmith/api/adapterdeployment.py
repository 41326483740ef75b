"""AdapterDeployment resource: adapters on one base model, each behind an alias, with step-by-step rollouts."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from tunesmith_contract.agent import BASE_MODEL_NAME

from .common import (
    BaseModelSource,
    Conditions,
    FineTuneJobRef,
    InvalidResource,
    Resource,
    Resources,
    SecretName,
    StatusModel,
    StrictModel,
    describe_details,
)
from .engine_arguments import EngineArgument
from .pod_settings import CacheVolume, EngineEnv, GPUResource, gpu_rules
from .pod_template import PodTemplate
from .reasons import AdapterPhase
from .rules import DIGEST_WITH_URI, Rule, exactly_one, keyed_by, matching
from .sources import STORE_KEYS
from .status import ContainerRequests
from .uris import ArtifactUri, HttpUrl
from .values import (
    AUTO,
    Confidence,
    DigestString,
    DiskSize,
    Duration,
    Fraction,
    GPUMemory,
    Image,
    Measured,
    ObjectName,
    ProofTolerance,
    Ratio,
    Timestamp,
)

#: Place of the arguments of the engine in a resource.
_ARGUMENTS = ("spec", "engine", "args")
#: Place of the adapters in a resource.
_ADAPTERS = ("spec", "adapters")

MAX_ADAPTERS = 64
MAX_STEPS = 10
MAX_PODS = 32
MAX_SETS = 8
MAX_REJECTED = 5
MAX_HISTORY = 5
MAX_ACTIONS = 5
MAX_BUDGETS = 20

Rank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]
RANKS: tuple[int, ...] = get_args(Rank)
Weight = Annotated[int, Field(ge=1, le=100)]
AliasName = Annotated[
    str,
    Field(max_length=63),
    matching(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        "Write the name that clients send as model: lower-case letters, digits, dashes and dots, at most 63 "
        "characters. Each dot stands between letters or digits.",
    ),
    Rule(
        f"self != '{BASE_MODEL_NAME}'",
        f"{BASE_MODEL_NAME} is the name of the base model without an adapter, which clients can always ask for: write "
        "another name.",
        lambda name: name != BASE_MODEL_NAME,
    ),
]
ParserName = Annotated[
    str,
    Field(max_length=63),
    matching(
        r"^(Auto|None|[a-z0-9]([-_a-z0-9]*[a-z0-9])?)$",
        "Write Auto, None, or the name of one of vLLM's parsers, such as hermes.",
    ),
]
MediaHost = Annotated[
    str,
    Field(max_length=253),
    matching(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$",
        "Write the name of a host without scheme, port and path, such as images.example.com.",
    ),
]


class UpdateStrategy(StrEnum):
    """Order in which pods are replaced when their template changes."""

    AUTO = "Auto"
    START_FIRST = "StartFirst"
    STOP_FIRST = "StopFirst"
    SECOND_SET = "SecondSet"


class PodSetRole(StrEnum):
    """Role of a set of pods while the engine, its image or the base model changes."""

    SERVING = "Serving"
    NEXT = "Next"
    FORMER = "Former"


class Proof(StrictModel):
    """The comparison that shows, before a version gets requests, that the engine answers with its adapter."""

    tolerance: ProofTolerance = Field(
        "Auto",
        description="The difference that is accepted between the engine's log-probabilities and those that the "
        'trainer measured, in nats per token, such as "0.2". Auto: chosen from the noise that the trainer measured '
        "and from the number of tokens. Raise it only if the engine serves the base model in a coarser precision "
        "than it was trained in, such as 4 bits, and a version fails with BaseModelMismatch or ProofFailed: the "
        "message has the measured difference.",
    )


class Engine(StrictModel):
    """Configuration of the inference engine (vLLM) in each pod."""

    rules = gpu_rules("gpus")

    gpus: int = Field(
        1,
        ge=0,
        le=16,
        description="The number of GPUs of each pod. Set it to 0 to serve on CPUs only. It also selects the default "
        "image: the one for GPUs or the one for CPUs that the operator was installed with.",
    )
    gpu_memory: GPUMemory = Field(
        "Auto",
        description="The memory of one GPU, such as 24Gi, which the condition Fits compares with the estimate. Auto: "
        "taken from the labels of the nodes that the pods may be scheduled to. A change does not replace pods.",
    )
    gpu_resource: GPUResource = None
    resident_adapters: int = Field(
        8,
        ge=1,
        le=256,
        description="The number of adapters that each pod keeps ready in memory. On GPUs, up to 8 of them are in GPU "
        "memory at the same time and share a batch; the others wait in host memory. Further adapters are "
        "loaded from the pod's disk when a request asks for them.",
    )
    adapter_cache_size: DiskSize = Field(
        "16Gi",
        description="The disk space of each pod for copies of adapters. It must hold all versions that are served at "
        "the same time: for each adapter the stable one, the candidate and the one before. Versions that are not "
        "served any more stay until there is no room.",
    )
    max_rank: Rank = Field(
        64,
        description="The largest LoRA rank that can be served. A larger value takes more GPU memory for each of the "
        "up to 8 adapters on the GPU, whatever their own rank.",
    )
    max_model_length: Annotated[int, Field(ge=16, le=10_485_760)] | None = Field(
        None,
        description="The longest context in tokens, prompt and answer together. If unset, it is the limit of the "
        "model, or what fits into memory if that is less. If set, the engine does not start where it does "
        "not fit.",
    )
    proof: Proof = Field(
        Proof(),
        description="The comparison that shows, before a version gets requests, that the engine answers with its "
        "adapter.",
    )
    resources: Resources | None = Field(
        None,
        description="CPU and memory requests and limits of the engine's container. The agent's container gets limits "
        "of the same resources.",
    )
    agent_resources: Resources | None = Field(
        None,
        description="CPU and memory requests and limits of the agent's container. If unset, it requests 100m and "
        "128Mi, and is limited to 1Gi of memory.",
    )
    args: Annotated[tuple[EngineArgument, ...], Field(max_length=32)] = Field(
        (),
        description='Additional command-line arguments for vLLM, such as ["--enforce-eager", "--dtype=float32"]. '
        "Arguments that other fields already set are rejected.",
    )
    image: Image | None = Field(
        None,
        description="The serving image. If unset, the image for GPUs or the one for CPUs that the operator was "
        "installed with is used, by gpus.",
    )
    update_strategy: UpdateStrategy = Field(
        UpdateStrategy.AUTO,
        description="The order in which pods are replaced when a field that they are built from changes, such as the "
        "engine or its image. SecondSet: a second set of as many pods starts beside the first one and loads all "
        "adapters; then all requests go to it at once. It needs as many free GPUs again. StopFirst: pods are replaced "
        "one after the other, and each old one is removed first; a single replica does not answer meanwhile. "
        "StartFirst: one after the other, and each new one is ready first. Auto: SecondSet, but StopFirst where a "
        "claim keeps the pods on one node with GPUs, or can be mounted by one pod only. A change of this field does "
        "not replace pods. A change of baseModel always uses SecondSet.",
    )
    scale_down_delay: Duration = Field(
        "10m",
        description="The time for which the former pods stay after a second set has taken over. In this time a change "
        "back is immediate, and the former pods answer again if no new one is ready. With 0s they drain at once.",
    )
    template: PodTemplate | None = Field(
        None, description="Labels, scheduling, volumes and service account of the serving pods."
    )
    lame_duck: Duration = Field(
        "5s",
        description="The time for which a pod still accepts requests after it was told to stop, until no client or "
        "gateway sends any more. Raise it for gateways that learn of endpoints slowly.",
    )
    drain: Duration = Field(
        "1m",
        description="The time that answers in progress have to finish: after lameDuck when a pod ends, and before a "
        "version is unloaded. The grace period of the pods follows.",
    )
    max_queued_requests: int = Field(
        64,
        ge=1,
        le=10_000,
        description="The number of requests that may wait in the engine of each pod. Further ones are answered with "
        "429 and Retry-After.",
    )
    env: EngineEnv = ()
    cache_volume: CacheVolume | None = Field(
        None,
        description="A PersistentVolumeClaim that keeps downloaded models and compiled kernels for later pods. If "
        "unset, each pod downloads and compiles them again. Use a ReadWriteMany claim with replicas above 1: with a "
        "ReadWriteOnce claim all pods run on one node.",
    )
    tool_call_parser: ParserName = Field(
        AUTO,
        description="The parser of vLLM that turns tool calls in answers into tool_calls, such as hermes. Auto: by "
        "the chat template of baseModel, once a FineTuneJob on it in this namespace has prepared its data; otherwise "
        "none. None: calls stay in the text.",
    )
    reasoning_parser: ParserName = Field(
        AUTO,
        description="The parser of vLLM that separates thinking from the answer, such as qwen3. Auto: by the chat "
        "template of baseModel, as for toolCallParser, where it begins every answer with thinking; otherwise none. "
        "Name one for models that think now and then. None: thinking stays in the text.",
    )
    media_hosts: Annotated[tuple[MediaHost, ...], Field(max_length=16)] = Field(
        (),
        description="Hosts that the engine may fetch images, audio and video from, where requests name them by a URL, "
        "such as images.example.com. Redirects are not followed. With an empty list, clients send media within the "
        "request, as data: URLs.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class Traces(StrictModel):
    """OpenTelemetry traces of requests, without contents."""

    endpoint: HttpUrl | None = Field(
        None,
        description="The URL to which spans are sent by OTLP over HTTP, with its path, such as "
        "http://otel-collector.observability:4318/v1/traces. If unset, the one that the operator was installed with is "
        "used; without one no traces are sent. The header traceparent is passed to the engine in any case.",
    )
    sample_ratio: Ratio | None = Field(
        None,
        description='The share of requests that are recorded, such as "0.05", of those whose client does not say '
        "by the header traceparent whether to record them. If unset, the one that the operator was "
        "installed with is used.",
    )


class AccessLogs(StrEnum):
    """Requests that are written to the access log."""

    NONE = "None"
    ERRORS = "Errors"
    ALL = "All"


class Telemetry(StrictModel):
    """Access log and traces of serving pods; never with contents, keys or names of users."""

    traces: Traces = Field(Traces(), description="OpenTelemetry traces of requests.")
    access_logs: AccessLogs = Field(
        AccessLogs.ERRORS,
        description="The requests of which the agent writes one line of JSON to its standard output. Errors: those "
        "that were not answered with a status below 400.",
    )


class ArtifactVolume(StrictModel):
    """A PersistentVolumeClaim with artifacts, mounted read-only into each pod."""

    claim: ObjectName = Field(description="The name of the PersistentVolumeClaim.")


class Access(StrictModel):
    """The keys that clients need."""

    keys_secret_ref: SecretName = Field(
        description="The Secret with the keys of clients. Each entry is one client: its name is the client's, its "
        'value a JSON object such as {"key": "…", "adapters": ["expenses"], "requestsPerMinute": 60, '
        '"tokensPerMinute": 20000, "budget": {"tokens": 1000000, "period": "Month"}}, of which only the key is '
        "required. A request without a known key is refused. A change of the Secret's content takes effect within "
        "about a minute, without a restart; a change of this field replaces the pods."
    )


class ArtifactSource(StrictModel):
    """The origin of an adapter: a FineTuneJob, or an artifact by uri and digest."""

    rules = (
        exactly_one(
            ("fine_tune_job_ref", "uri"),
            "Set exactly one source: fineTuneJobRef: {name: …}, or uri and digest.",
        ),
        DIGEST_WITH_URI,
    )

    fine_tune_job_ref: FineTuneJobRef | None = Field(
        None,
        description="The FineTuneJob whose artifact is served. The artifact is used once the job has succeeded.",
    )
    uri: ArtifactUri | None = Field(
        None, description="The location of the artifact, such as pvc://artifacts/sha256/…. Requires digest."
    )
    digest: DigestString | None = Field(
        None,
        description="The digest of the artifact at uri, as shown in the status of the job that produced it.",
    )


class RequiredVerdict(StrEnum):
    """EvalRun verdict that a version needs before it receives requests."""

    PASS = "Pass"
    NONE = "None"


class RequiredBaseline(StrEnum):
    """Model that a version must have been compared with."""

    ANY = "Any"
    SERVING = "Serving"


class EvalRunRequirement(StrictModel):
    """The evaluation that each new version must have passed."""

    rules = (
        Rule(
            "!has(self.verdict) || self.verdict == 'Pass' || !has(self.policyDigest)",
            "policyDigest has no effect with verdict: None. Leave it out, or write verdict: Pass.",
        ),
        Rule(
            "!has(self.verdict) || self.verdict == 'Pass' || !has(self.baseline) || self.baseline == 'Any'",
            "baseline has no effect with verdict: None. Leave it out, or write verdict: Pass.",
        ),
    )

    verdict: RequiredVerdict = Field(
        RequiredVerdict.PASS,
        description="The verdict that a new version needs before it receives requests. Pass: an EvalRun in this "
        "namespace must have passed exactly this digest. None: no evaluation is required, and the "
        "version is reported as Unevaluated.",
    )
    policy_digest: DigestString | None = Field(
        None,
        description="Restricts the EvalRuns that count to those with this status.policyDigest, that is, with the "
        "same suites, data, gates, baseline and settings. If unset, an EvalRun of any policy that passed counts, "
        "unless the newest one of some policy failed. Of one policy, the newest EvalRun counts.",
    )
    baseline: RequiredBaseline = Field(
        RequiredBaseline.ANY,
        description="The model that the version must have been compared with. Serving: the version that the alias "
        "serves now (in the EvalRun: baseline.adapterDeploymentRef); the first version needs none. Any: the one that "
        "the EvalRun chose.",
    )


class RolloutStep(StrictModel):
    """One step of a rollout: a share of the requests and its duration."""

    weight: Weight = Field(description="The share of requests that go to the new version, in percent.")
    pause: Duration | None = Field(
        None,
        description="The minimum duration of the step, such as 5m. The next step begins after it, once the "
        "analysis passes. The last step must not have a pause.",
    )


class Guardrail(StrictModel):
    """The limit of a metric that a new version must stay below."""

    max: Fraction = Field(
        description='The highest acceptable value of the metric, such as "0.02" for 2 % of the requests.'
    )
    confidence: Confidence = Field(
        "0.99",
        description="The statistical confidence that max is exceeded which is required before the version is "
        'rolled back, such as "0.99".',
    )


class AnalysisCheck(StrictModel):
    """One metric with its guardrail."""

    metric: Literal["ErrorRate"] = Field(
        description="The metric to check. ErrorRate: the share of the new version's requests that ended in a "
        "server error (HTTP 5xx or a broken stream), or were abandoned by their client after a long wait. Requests "
        "that lost their engine do not count."
    )
    guardrail: Guardrail = Field(description="The limit that the metric must stay below.")


class Analysis(StrictModel):
    """The checks that decide whether a rollout step continues or is rolled back."""

    interval: Duration = Field("30s", description="The time between two checks, such as 30s.")
    failure_limit: int = Field(
        0,
        ge=0,
        le=100,
        description="The number of failed checks in a step that are tolerated before the version is rolled back. "
        "With 0, the first failed check rolls it back. A check fails again only by requests that came after the last "
        "one.",
    )
    consecutive_error_limit: int = Field(
        4,
        ge=0,
        le=100,
        description="The number of checks in a row that are tolerated although no agent was connected, so that nothing "
        "was measured. Beyond it the rollout is Stalled until a check measures something; nothing is rejected.",
    )
    inconclusive_limit: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        None,
        description="The number of checks after a step's pause that are tolerated although there were fewer requests "
        "than minimumRequests. Beyond it the rollout is Stalled and stays at its step; nothing is rejected. If unset, "
        "the rollout waits for requests, and progressDeadline alone says that it is Stalled.",
    )
    minimum_requests: int = Field(
        20,
        ge=0,
        le=1_000_000,
        description="The number of requests that the new version must have answered in a step before the next "
        "step begins. With 0, the pause alone decides.",
    )
    checks: Annotated[tuple[AnalysisCheck, ...], Field(max_length=8)] = Field(
        (AnalysisCheck(metric="ErrorRate", guardrail=Guardrail(max="0.02")),),
        description="The metrics to check. An empty list ([]) disables the analysis.",
        json_schema_extra=keyed_by("metric"),
    )


class Rollout(StrictModel):
    """The steps by which a new version replaces the previous one."""

    rules = (
        Rule(
            "!has(self.steps) || self.steps.map(s, s.weight).isSorted() "
            "&& self.steps.all(s, self.steps.exists_one(other, other.weight == s.weight))",
            "The weights must rise from step to step, such as 10, 50, 100.",
            field=".steps",
        ),
        Rule(
            "!has(self.steps) || self.steps[self.steps.size() - 1].weight == 100",
            "The last step must be {weight: 100}, which promotes the new version.",
            field=".steps",
        ),
        Rule(
            "!has(self.steps) || self.steps.all(s, has(s.pause) == (s.weight < 100))",
            "Each step but the last needs a pause, such as {weight: 10, pause: 5m}; the last one has none.",
            field=".steps",
        ),
    )

    steps: Annotated[tuple[RolloutStep, ...], Field(min_length=1, max_length=MAX_STEPS)] = Field(
        (RolloutStep(weight=10, pause="1m"), RolloutStep(weight=100)),
        description="The rollout steps, with weights rising to 100. For example, [{weight: 100}] switches at "
        "once. The first version of an adapter has no predecessor and receives all requests at once.",
    )
    analysis: Analysis = Field(
        Analysis(), description="The checks that decide whether a rollout step continues or is rolled back."
    )
    progress_deadline: Duration = Field(
        "1h",
        description="The time without progress after which the rollout is Stalled: the new version is loaded by no "
        "further pod, or the pause of its step is over and the next step does not begin, for example because it has "
        "too few requests. Nothing is rejected, and the rollout goes on if it can.",
    )
    rollback_window: Duration = Field(
        "10m",
        description="The time after a promotion in which the previous version stays loaded. If the new version exceeds "
        "a guardrail in this time, all requests go back to the previous one at once, and the new one is rejected. "
        "Later it is only reported, as Degraded. With 0s no version is kept.",
    )


class Adapter(StrictModel):
    """One alias and the adapter that it serves."""

    name: AliasName = Field(
        description="The alias of the adapter. Clients send it as the `model` of a request; it stays the same "
        "when a new version takes over."
    )
    source: ArtifactSource = Field(
        description="The origin of the adapter. A change to an artifact with another digest starts a rollout."
    )
    require_eval_run: EvalRunRequirement = Field(
        EvalRunRequirement(),
        description="The evaluation that each new version must have passed before it receives requests.",
    )
    rollout: Rollout = Field(
        Rollout(), description="The steps by which a new version replaces the previous one."
    )
    paused: bool = Field(
        False,
        description="If true, a rollout in progress stays at its current step. It can still be rolled back. The action "
        "pause does the same without a change of the spec; a rollout goes on when neither holds. While this is true, "
        "the actions resume and promote are refused.",
    )


class AdapterDeploymentSpec(StrictModel):
    """Specification of an AdapterDeployment."""

    rules = (
        Rule(
            "self.adapters.all(a, !has(a.source.uri) || !a.source.uri.startsWith('pvc://') || "
            "self.artifactVolumes.exists(v, a.source.uri.startsWith('pvc://' + v.claim + '/')))",
            "The uri of an adapter is on a PersistentVolumeClaim that the pods do not mount: add it to "
            "artifactVolumes as {claim: …}.",
            field=".artifactVolumes",
        ),
    )

    base_model: BaseModelSource = Field(
        description="The model that the adapters were trained on. To change it, change the sources of all adapters in "
        "the same apply: pods on the new model start beside the old ones, load a version of each adapter, and take "
        "over."
    )
    replicas: int = Field(
        1,
        ge=0,
        le=1000,
        description="The number of serving pods. Each pod serves every adapter. Leave it out of the manifest if an "
        "autoscaler sets it: HorizontalPodAutoscaler and KEDA name this AdapterDeployment as their target.",
    )
    engine: Engine = Field(Engine(), description="Configuration of the inference engine (vLLM) in each pod.")
    telemetry: Telemetry = Field(
        Telemetry(),
        description="The access log and traces of the serving pods; metrics are always published. A change replaces "
        "the pods.",
    )
    artifact_volumes: Annotated[tuple[ArtifactVolume, ...], Field(max_length=16)] = Field(
        (),
        description="PersistentVolumeClaims with artifacts, mounted read-only into each pod. With a ReadWriteOnce "
        "claim all pods run on one node; the condition VolumesShared says so. A change replaces the pods in the "
        "order of engine.updateStrategy.",
        json_schema_extra=keyed_by("claim"),
    )
    artifact_secret_ref: SecretName | None = Field(
        None,
        description="The Secret for artifacts that the pods download from a bucket, registry or hub. "
        f"{STORE_KEYS} One Secret may hold the keys of several kinds of storage. A change of this field "
        "replaces the pods in the order of engine.updateStrategy; a change of the Secret's content takes effect "
        "without a restart.",
    )
    access: Access | None = Field(
        None,
        description="The keys that clients need. If unset, no key is needed: every client that the NetworkPolicy of "
        "the pods admits is served, and the condition AccessRestricted says so. A change replaces the pods.",
    )
    adapters: Annotated[tuple[Adapter, ...], Field(max_length=MAX_ADAPTERS)] = Field(
        (),
        description="The adapters to serve. The list is a map keyed by name, so several teams can each apply "
        "their own adapter with server-side apply.",
        json_schema_extra=keyed_by("name"),
    )
    revision_history_limit: int = Field(
        10,
        ge=0,
        le=100,
        description="The number of earlier versions of each adapter that are remembered, and that the action undo "
        "can go back to: those that were promoted last. Versions that are loaded or being rolled out do not count. Of "
        "rejected versions the latest 20 are remembered.",
    )


class CheckResult(StatusModel):
    """The result of the latest check of one metric."""

    metric: str = Field(max_length=64, description="The name of the metric.")
    value: Measured | None = Field(
        None, description="The measured value. It is absent if there were no requests."
    )
    requests: int = Field(0, ge=0, description="The number of requests that the value is based on.")
    failures: int = Field(0, ge=0, description="The number of failed checks in the current step.")
    verdict: Literal["Pass", "Fail", "Inconclusive"] = Field(
        description="The result of the check. Inconclusive: there were too few requests."
    )


class StableVersion(StatusModel):
    """The version that an alias currently stands for."""

    version: int = Field(ge=1, description="The version number, counted from 1 for each alias.")
    digest: str = Field(max_length=71, description="The digest of the artifact.")
    uri: str | None = Field(None, max_length=512, description="The location of the artifact.")
    weight: int = Field(
        0, ge=0, le=100, description="The share of requests that go to this version, in percent."
    )
    loaded_on: int = Field(
        0, ge=0, description="The number of ready pods on which this version was verified to be active."
    )


class CandidateVersion(StableVersion):
    """The version that is being rolled out."""

    step: int = Field(0, ge=0, description="The index of the current rollout step, starting at 0.")
    step_start_time: Timestamp | None = Field(None, description="The time at which the current step began.")
    analysis: Annotated[tuple[CheckResult, ...], Field(max_length=8)] = Field(
        (), description="The latest check result of each metric.", json_schema_extra=keyed_by("metric")
    )


class PreviousVersion(StatusModel):
    """The version that was stable before, while it stays loaded."""

    version: int = Field(ge=1, description="The version number.")
    digest: str = Field(max_length=71, description="The digest of the artifact.")
    loaded_on: int = Field(
        0, ge=0, description="The number of ready pods on which this version was verified to be active."
    )


class PastVersion(StatusModel):
    """A version that was promoted."""

    version: int = Field(ge=1, description="The version number.")
    digest: str = Field(max_length=71, description="The digest of the artifact.")
    verdict: str | None = Field(
        None, max_length=32, description="The verdict of the version's EvalRun, or Unevaluated."
    )
    time: Timestamp = Field(description="The time of the promotion.")


class RejectedDigest(StatusModel):
    """An artifact that was rolled back, and is not tried again without the action retry."""

    digest: str = Field(max_length=71, description="The digest of the artifact.")
    reason: str = Field(
        max_length=64,
        description="The reason for the rollback as a single CamelCase word, such as ErrorRateTooHigh.",
    )
    time: Timestamp = Field(description="The time of the rollback.")
    by: str | None = Field(
        None,
        max_length=128,
        description="The person who rejected it by the action abort or undo. It is absent if the operator did.",
    )


class ActionResult(StatusModel):
    """The result of an action that the annotation tunesmith.dev/action requested."""

    id: str = Field(max_length=63, description="The ID of the action. One with a known ID is not done again.")
    verb: str = Field(
        max_length=16, description="The kind of action: pause, resume, promote, abort, retry or undo."
    )
    digest: str | None = Field(None, max_length=71, description="The digest that the action names.")
    to_version: int | None = Field(None, ge=1, description="The version number that the action names.")
    result: Literal["Done", "Refused"] = Field(description="Done, or Refused: nothing was changed.")
    message: str | None = Field(
        None, max_length=512, description="A sentence that says what happens, or why it is refused."
    )
    time: Timestamp = Field(description="The time at which the operator acted.")
    by: str | None = Field(
        None, max_length=128, description="The person who requested it, as the action says."
    )
    manager: str | None = Field(
        None,
        max_length=128,
        description="The field manager that wrote the annotation, such as kubectl-annotate, as the API server says.",
    )
    reason: str | None = Field(None, max_length=256, description="The reason that the action gives.")


class AdapterStatus(StatusModel):
    """Observed state of one alias."""

    name: str = Field(max_length=63, description="The alias.")
    phase: AdapterPhase = Field(
        description="A summary of the state for people. Tools should use reason and the resource's conditions."
    )
    reason: str | None = Field(
        None, max_length=64, description="The reason for the phase as a single CamelCase word."
    )
    message: str | None = Field(None, max_length=512, description="A sentence that explains the phase.")
    evaluated: str | None = Field(
        None, max_length=32, description="The EvalRun verdict of the newest version, or Unevaluated."
    )
    eval_runs: int | None = Field(
        None,
        ge=0,
        description="The number of EvalRuns that judged the artifact of the source by the policy that counts. The "
        "newest one counts.",
    )
    stable: StableVersion | None = Field(
        None,
        description="The version that the alias currently stands for. It is absent until the first version is "
        "promoted.",
    )
    paused: bool = Field(
        False,
        description="True while rollouts of the alias stay at their step, by paused in the spec or the action pause.",
    )
    candidate: CandidateVersion | None = Field(
        None, description="The version that is being rolled out, if there is one."
    )
    previous: PreviousVersion | None = Field(
        None,
        description="The version that was stable before. It stays loaded during the rollback window, without requests.",
    )
    history: Annotated[tuple[PastVersion, ...], Field(max_length=MAX_HISTORY)] = Field(
        (),
        description="The most recently promoted versions, newest first. At most 5 are shown, fewer where "
        "status would be too large.",
    )
    rejected: Annotated[tuple[RejectedDigest, ...], Field(max_length=MAX_REJECTED)] = Field(
        (),
        description="The artifacts that were rolled back most recently, newest first. At most 5 are shown, fewer "
        "where status would be too large. None "
        "is tried again, also under a new resource of this name, without the action retry.",
        json_schema_extra=keyed_by("digest"),
    )
    actions: Annotated[tuple[ActionResult, ...], Field(max_length=MAX_ACTIONS)] = Field(
        (),
        description="The results of the latest actions, newest first. At most 5 are shown, fewer where status would "
        "be too large. An action is requested by "
        'the annotation tunesmith.dev/action, such as {"id": "1", "adapter": "expenses", "verb": "undo"}.',
    )


class PodStatus(StatusModel):
    """Observed state of one serving pod."""

    name: str = Field(max_length=253, description="The name of the pod.")
    ready: bool = Field(description="True if the pod accepts requests.")
    generation: int = Field(
        0, ge=0, description="The generation of the desired state that the pod applied last."
    )
    loaded: Annotated[
        tuple[Annotated[str, Field(max_length=80)], ...], Field(max_length=2 * MAX_ADAPTERS)
    ] = Field(
        (),
        description="The versions that are active on the pod, each as <alias>@<first 12 digits of the digest>. They "
        "are left out where status would be too large.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    message: str | None = Field(
        None,
        max_length=512,
        description="A sentence that explains what the pod is waiting for, or why a version could not be loaded.",
    )


class BudgetStatus(StatusModel):
    """Use of a client's budget in the current period."""

    client: str = Field(max_length=63, description="The client, by the name of its entry in the Secret.")
    period: str = Field(
        max_length=10,
        description="The current period in UTC: a day such as 2030-01-15, or a month such as 2030-01.",
    )
    used: int = Field(ge=0, description="The tokens of prompts and answers that all pods have counted.")
    budget: int = Field(ge=1, description="The tokens that the client may use in the period.")


class AccessStatus(StatusModel):
    """Observed state of the clients with keys."""

    clients: int = Field(0, ge=0, description="The number of clients with a usable entry in the Secret.")
    budgets: Annotated[tuple[BudgetStatus, ...], Field(max_length=MAX_BUDGETS)] = Field(
        (),
        description="The use of budgets, ordered by name. Of more than 20 clients those are shown that have used most "
        "of theirs.",
        json_schema_extra=keyed_by("client"),
    )


class PodSetStatus(StatusModel):
    """Observed state of one set of serving pods, which have the same engine, image and base model."""

    number: int = Field(ge=1, description="The number of the set. A later set has a higher number.")
    deployment: str = Field(max_length=253, description="The name of the set's Deployment.")
    role: PodSetRole = Field(
        description="Serving: the Service sends requests to its pods. Next: it is loading the adapters, and will "
        "answer once its pods have them. Former: it answered before, and stays for engine.scaleDownDelay."
    )
    base_model: str | None = Field(None, max_length=512, description="The URI of the base model.")
    image: str | None = Field(None, max_length=512, description="The serving image.")
    replicas: int = Field(0, ge=0, description="The number of existing pods.")
    ready_replicas: int = Field(0, ge=0, description="The number of pods that accept requests.")
    message: str | None = Field(
        None, max_length=512, description="A sentence that explains what the next set is waiting for."
    )


class AdapterDeploymentStatus(StatusModel):
    """Observed state of an AdapterDeployment."""

    conditions: Conditions = ()
    observed_generation: int = Field(
        0, ge=0, description="The metadata.generation that this status describes."
    )
    url: str | None = Field(
        None, max_length=512, description="The base URL for clients in the cluster. It serves the OpenAI API."
    )
    replicas: int = Field(
        0, ge=0, description="The number of existing pods, of the set that answers if there are two."
    )
    ready_replicas: int = Field(0, ge=0, description="The number of pods that accept requests, of that set.")
    next_set: str | None = Field(
        None,
        max_length=16,
        description="The number of pods of the next set that are ready with all adapters, out of all, such as 1/3. It "
        "is absent without a next set.",
    )
    selector: str | None = Field(
        None,
        max_length=512,
        description="The label selector of the pods, which autoscalers read their load by.",
    )
    engine_requests: ContainerRequests | None = Field(
        None,
        description="The requests of the engine's container in each pod: those in engine.resources, and for the rest "
        "those that follow from the size of the model. It is absent if there are none.",
    )
    access: AccessStatus | None = Field(
        None, description="The clients with keys. It is absent if no keys are needed."
    )
    adapters_stable: str | None = Field(
        None, max_length=8, description="The number of stable adapters out of all adapters, such as 2/3."
    )
    generation: int = Field(
        0,
        ge=0,
        description="The generation of the desired state that is sent to the pods. It grows with each change of "
        "versions or weights.",
    )
    update_time: Timestamp | None = Field(
        None,
        description="The time at which the status was last written. Changes of counters alone are written at most"
        " every 10 seconds.",
    )
    adapters: Annotated[tuple[AdapterStatus, ...], Field(max_length=MAX_ADAPTERS)] = Field(
        (), description="The state of each alias.", json_schema_extra=keyed_by("name")
    )
    sets: Annotated[tuple[PodSetStatus, ...], Field(max_length=MAX_SETS)] = Field(
        (),
        description="The sets of pods, ordered by number: the one that answers, and another one while the engine, its "
        "image, the base model or another field that pods are built from changes.",
        json_schema_extra=keyed_by("number"),
    )
    pods: Annotated[tuple[PodStatus, ...], Field(max_length=MAX_PODS)] = Field(
        (), description="The state of the first 32 pods, ordered by name.", json_schema_extra=keyed_by("name")
    )


class AdapterDeployment(Resource):
    """AdapterDeployment serves many LoRA adapters on one base model and rolls out new versions step by step.

    The annotation tunesmith.dev/action acts on a rollout: pause, resume, promote, abort, retry or undo. It is JSON,
    such as {"id": "1", "adapter": "expenses", "verb": "undo"}; status.adapters.actions has the results.
    """

    kind_name: ClassVar[str] = "AdapterDeployment"
    plural: ClassVar[str] = "adapterdeployments"
    short_name: ClassVar[str] = "ad"

    kind: Literal["AdapterDeployment"] = "AdapterDeployment"
    spec: AdapterDeploymentSpec = Field(
        description="The desired state: the base model, the engine, and the adapters to serve."
    )
    status: AdapterDeploymentStatus = Field(
        AdapterDeploymentStatus(), description="The observed state. It is written by the operator only."
    )
    _refused_arguments: str = PrivateAttr("")
    _refused_aliases: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def refused_arguments(self) -> str:
        """Sentences about arguments of the engine that were written before a rule refused them; empty without any."""
        return self._refused_arguments

    @property
    def refused_aliases(self) -> Mapping[str, str]:
        """Sentence about each alias that was written before a rule refused its name, by that name."""
        return self._refused_aliases

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Resource from an object of the API server.

        What was written before a rule refused it, arguments of the engine and names of adapters, is left out of it.
        Rollouts of all else go on: without checks a failing version would keep its requests.

        Raises:
            InvalidResource: anything else is wrong.
        """
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            details = error.errors()
        arguments = [detail for detail in details if _is_item(detail["loc"], _ARGUMENTS)]
        names = [detail for detail in details if _is_item(detail["loc"], _ADAPTERS, "name")]
        if len(arguments) + len(names) < len(details):
            raise InvalidResource(describe_details(details))
        spec = body["spec"]
        engine, adapters = spec.get("engine", {}), spec.get("adapters", ())
        if arguments:
            engine = {**engine, "args": _without(engine["args"], arguments, _ARGUMENTS)}
        left = _without(adapters, names, _ADAPTERS)
        resource = super().parse({**body, "spec": {**spec, "engine": engine, "adapters": left}})
        resource._refused_arguments = describe_details(arguments)
        resource._refused_aliases = {
            adapters[detail["loc"][len(_ADAPTERS)]]["name"]: describe_details([detail]) for detail in names
        }
        return resource


def _is_item(place: tuple[int | str, ...], items: tuple[str, ...], *field: str) -> bool:
    """True for the place of an item of this list, or of this field of an item."""
    return place[: len(items)] == items and len(place) > len(items) and place[len(items) + 1 :] == field


def _without(items: Sequence[Any], details: Iterable[ErrorDetails], place: tuple[str, ...]) -> list[Any]:
    """The items without those that have faults."""
    faulty = {detail["loc"][len(place)] for detail in details}
    return [item for index, item in enumerate(items) if index not in faulty]
