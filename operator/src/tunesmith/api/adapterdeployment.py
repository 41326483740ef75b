"""AdapterDeployment: many adapters on one base model, each behind a stable name; rollouts step by step."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .common import (
    BaseModelSource,
    Conditions,
    FineTuneJobRef,
    PodTemplate,
    Resource,
    Resources,
    SecretName,
    StatusModel,
    StrictModel,
)
from .reasons import AdapterPhase
from .rules import Rule, exactly_one, keyed_by, matching
from .sources import STORE_KEYS
from .uris import ServedArtifactUri
from .values import (
    Confidence,
    DigestString,
    Duration,
    Fraction,
    Image,
    Measured,
    ObjectName,
    Timestamp,
)

MAX_ADAPTERS = 64
MAX_STEPS = 10
MAX_PODS = 32
MAX_REJECTED = 5
MAX_HISTORY = 5

#: Engine arguments that follow from the resource, or would open the engine to others; without their dashes.
OWNED_ARGUMENTS = (
    "host",
    "port",
    "uds",
    "root-path",
    "api-key",
    "api-server-count",
    "config",
    "model",
    "served-model-name",
    "revision",
    "tokenizer",
    "enable-lora",
    "no-enable-lora",
    "lora-modules",
    "max-loras",
    "max-cpu-loras",
    "max-lora-rank",
    "max-model-len",
    "tensor-parallel-size",
    "tp",
    "data-parallel-size",
    "dp",
    "ssl-keyfile",
    "ssl-certfile",
    "ssl-ca-certs",
    "trust-remote-code",
    "hf-token",
)


def _is_owned(argument: str) -> bool:
    name = argument.split("=", 1)[0].lstrip("-").replace("_", "-")
    return argument.startswith("-") and any(owned.startswith(name) for owned in OWNED_ARGUMENTS)


_OWNED_LIST = ", ".join(f"'{name}'" for name in OWNED_ARGUMENTS)
_NAME_IN_CEL = "self.split('=')[0].replace('_', '-').replace('-', ' ').trim().replace(' ', '-')"
# The engine's parser takes a beginning of a name for the whole.
_NOT_OWNED = Rule(
    f"!self.startsWith('-') || ![{_OWNED_LIST}].exists(owned, owned.startsWith({_NAME_IN_CEL}))",
    "This argument follows from other fields or would bypass the agent: leave it out. Use baseModel, "
    "engine.residentAdapters, engine.maxRank, engine.maxModelLength and engine.gpus.",
    lambda argument: not _is_owned(argument),
)

Weight = Annotated[int, Field(ge=1, le=100)]
AliasName = Annotated[
    str,
    Field(max_length=63),
    matching(
        r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "Write the name that clients send as model: lower-case letters, digits, dashes and dots, at most 63 "
        "characters.",
    ),
]


class Engine(StrictModel):
    """The inference engine in each pod."""

    gpus: int = Field(1, ge=0, le=16, description="GPUs of each pod. 0: CPU only.")
    resident_adapters: int = Field(
        8,
        ge=1,
        le=256,
        description="Adapters that a pod holds ready at a time. The others are loaded when asked for.",
    )
    max_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = Field(
        64, description="The largest LoRA rank that can be served. Memory grows with it for every adapter."
    )
    max_model_length: Annotated[int, Field(ge=16, le=10_485_760)] | None = Field(
        None, description="Longest prompt and answer together, in tokens. Absent: what the model allows."
    )
    resources: Resources | None = Field(None, description="CPU and memory of the engine.")
    args: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256), _NOT_OWNED], ...], Field(max_length=32)
    ] = Field(
        (),
        description='Further arguments of vLLM, such as ["--enforce-eager", "--dtype=float32"]. Those that '
        "other fields stand for are refused.",
    )
    image: Image | None = Field(None, description="A serving image of your own. Absent: the operator's.")
    template: PodTemplate | None = Field(None, description="Where and as whom the pods run.")


class ArtifactVolume(StrictModel):
    """A claim with artefacts, mounted read-only into each pod."""

    claim: ObjectName = Field(description="Name of the PersistentVolumeClaim.")


class AdapterSource(StrictModel):
    """Where the adapter comes from."""

    rules = (
        exactly_one(
            ("fine_tune_job_ref", "uri"),
            "Name the source in one way: fineTuneJobRef: {name: …}, or uri and digest.",
        ),
        Rule(
            "has(self.uri) == has(self.digest)",
            "Write uri and digest together: the digest says which bytes are meant.",
            lambda source: (source.uri is None) == (source.digest is None),
        ),
    )

    fine_tune_job_ref: FineTuneJobRef | None = Field(
        None, description="The artefact of this FineTuneJob, once it has succeeded."
    )
    uri: ServedArtifactUri | None = Field(None, description="Where the artefact lies. Needs digest.")
    digest: DigestString | None = Field(None, description="Digest of the artefact at uri.")


class RequiredVerdict(StrEnum):
    """What an EvalRun must have said before an adapter gets any request."""

    PASS = "Pass"
    NONE = "None"


class EvalRunRequirement(StrictModel):
    """Proof that is asked of each new version."""

    rules = (
        Rule(
            "self.verdict == 'Pass' || !has(self.policyDigest)",
            "policyDigest has no effect with verdict: None. Leave it out, or write verdict: Pass.",
            lambda needed: needed.verdict is RequiredVerdict.PASS or needed.policy_digest is None,
        ),
    )

    verdict: RequiredVerdict = Field(
        RequiredVerdict.PASS,
        description="Pass: an EvalRun in this namespace has passed this very digest. None: no proof is "
        "asked; the adapter is shown as Unevaluated.",
    )
    policy_digest: DigestString | None = Field(
        None, description="Only an EvalRun with this status.policyDigest counts. Absent: any that passed."
    )


class RolloutStep(StrictModel):
    """A share of the requests, and how long it is kept."""

    weight: Weight = Field(description="Share of the requests that the new version gets, in percent.")
    pause: Duration | None = Field(
        None,
        description="How long the step lasts before the next one, such as 5m; the analysis must be content "
        "by then. Not on the last step.",
    )


class Guardrail(StrictModel):
    """A bound that the new version may not cross."""

    max: Fraction = Field(description='The most that is allowed, such as "0.02".')
    confidence: Confidence = Field(
        "0.99",
        description="How sure it must be that the bound is crossed before the version is taken back, such as "
        '"0.99".',
    )


class AnalysisCheck(StrictModel):
    """One thing that is watched."""

    metric: Literal["ErrorRate"] = Field(
        description="ErrorRate: share of the new version's requests that ended in a server error."
    )
    guardrail: Guardrail = Field(description="The bound.")


class Analysis(StrictModel):
    """How a step is judged."""

    interval: Duration = Field("30s", description="Time between two looks, such as 30s.")
    failure_limit: int = Field(
        0, ge=0, le=100, description="How many failed looks are tolerated before the version is taken back."
    )
    minimum_requests: int = Field(
        20,
        ge=0,
        le=1_000_000,
        description="Requests that the new version must have had in a step before it goes on. 0: time alone "
        "decides.",
    )
    checks: Annotated[tuple[AnalysisCheck, ...], Field(max_length=8)] = Field(
        (AnalysisCheck(metric="ErrorRate", guardrail=Guardrail(max="0.02")),),
        description="What is watched. []: nothing.",
        json_schema_extra=keyed_by("metric"),
    )


class Rollout(StrictModel):
    """How a new version takes over from the one before."""

    rules = (
        Rule(
            "self.steps.map(s, s.weight).isSorted() "
            "&& self.steps.all(s, self.steps.exists_one(other, other.weight == s.weight))",
            "The weights must rise from step to step, such as 10, 50, 100.",
            lambda rollout: all(
                a.weight < b.weight for a, b in zip(rollout.steps, rollout.steps[1:], strict=False)
            ),
            ".steps",
        ),
        Rule(
            "self.steps[self.steps.size() - 1].weight == 100",
            "The last step must be {weight: 100}: then the new version has taken over.",
            lambda rollout: rollout.steps[-1].weight == 100,
            ".steps",
        ),
        Rule(
            "self.steps.all(s, has(s.pause) == (s.weight < 100))",
            "Each step but the last needs a pause, such as {weight: 10, pause: 5m}; the last one has none.",
            lambda rollout: all((step.pause is not None) == (step.weight < 100) for step in rollout.steps),
            ".steps",
        ),
    )

    steps: Annotated[tuple[RolloutStep, ...], Field(min_length=1, max_length=MAX_STEPS)] = Field(
        (RolloutStep(weight=10, pause="1m"), RolloutStep(weight=100)),
        description="Shares of the requests, rising to 100. [{weight: 100}]: at once. The first version of "
        "an adapter has nothing to take over from and gets all requests at once.",
    )
    analysis: Analysis = Field(Analysis(), description="How a step is judged.")


class Adapter(StrictModel):
    """One stable name, and the adapter behind it."""

    name: AliasName = Field(description="The stable name that clients send as `model`.")
    source: AdapterSource = Field(
        description="Where the adapter comes from. Another digest starts a rollout."
    )
    require_eval_run: EvalRunRequirement = Field(
        EvalRunRequirement(), description="Proof that is asked of each new version."
    )
    rollout: Rollout = Field(Rollout(), description="How a new version takes over from the one before.")
    paused: bool = Field(False, description="True: a rollout under way stays at its step.")


class AdapterDeploymentSpec(StrictModel):
    """What to serve, on what, and how new versions come in."""

    rules = (
        Rule(
            "self.adapters.all(a, !has(a.source.uri) || !a.source.uri.startsWith('pvc://') || "
            "self.artifactVolumes.exists(v, a.source.uri.startsWith('pvc://' + v.claim + '/')))",
            "An adapter's uri lies in a claim that the pods do not have: add it to artifactVolumes as "
            "{claim: …}.",
            lambda spec: all(
                adapter.source.uri is None
                or not adapter.source.uri.startswith("pvc://")
                or any(
                    adapter.source.uri.startswith(f"pvc://{volume.claim}/")
                    for volume in spec.artifact_volumes
                )
                for adapter in spec.adapters
            ),
            ".artifactVolumes",
        ),
        Rule(
            "self.baseModel == oldSelf.baseModel",
            "baseModel can't be changed: its adapters would not fit another one. Make a new "
            "AdapterDeployment.",
            field=".baseModel",
        ),
    )

    base_model: BaseModelSource = Field(description="The model that the adapters were trained on.")
    replicas: int = Field(1, ge=0, le=1000, description="Pods. Each of them serves every adapter.")
    engine: Engine = Field(Engine(), description="The inference engine in each pod.")
    artifact_volumes: Annotated[tuple[ArtifactVolume, ...], Field(max_length=16)] = Field(
        (),
        description="Claims with artefacts, mounted read-only into each pod. A change replaces the pods, one "
        "after the other.",
        json_schema_extra=keyed_by("claim"),
    )
    artifact_secret_ref: SecretName | None = Field(
        None,
        description=f"For adapters that the pods fetch: {STORE_KEYS} One Secret may hold the keys of several kinds. "
        "A change replaces the pods; a change of what it holds is taken up without.",
    )
    adapters: Annotated[tuple[Adapter, ...], Field(max_length=MAX_ADAPTERS)] = Field(
        (),
        description="What is served. Keyed by name: several teams can apply their own adapter with "
        "server-side apply.",
        json_schema_extra=keyed_by("name"),
    )


class CheckResult(StatusModel):
    """The last look at one metric."""

    metric: str = Field(max_length=64, description="The metric.")
    value: Measured | None = Field(None, description="What was measured.")
    requests: int = Field(0, ge=0, description="Requests that it rests on.")
    failures: int = Field(0, ge=0, description="Looks that failed in this step.")
    verdict: Literal["Pass", "Fail", "Inconclusive"] = Field(description="What the look says.")


class StableVersion(StatusModel):
    """The version that a name stands for."""

    version: int = Field(ge=1, description="Counts from 1 within the name.")
    digest: str = Field(max_length=71, description="Digest of the artefact.")
    uri: str | None = Field(None, max_length=512, description="Where the artefact lies.")
    weight: int = Field(0, ge=0, le=100, description="Share of the requests, in percent.")
    loaded_on: int = Field(0, ge=0, description="Pods on which it is proven to be active.")


class CandidateVersion(StableVersion):
    """The version that is to take over."""

    step: int = Field(0, ge=0, description="The rollout's step, from 0.")
    step_start_time: Timestamp | None = Field(None, description="When the step began.")
    analysis: Annotated[tuple[CheckResult, ...], Field(max_length=8)] = Field(
        (), description="The last look at each metric.", json_schema_extra=keyed_by("metric")
    )


class PastVersion(StatusModel):
    """A version that was promoted."""

    version: int = Field(ge=1, description="Number within the name.")
    digest: str = Field(max_length=71, description="Digest of the artefact.")
    verdict: str | None = Field(None, max_length=32, description="What its EvalRun said, or Unevaluated.")
    time: Timestamp = Field(description="When it was promoted.")


class RejectedDigest(StatusModel):
    """An artefact that was taken back; it is never promoted again."""

    digest: str = Field(max_length=71, description="Digest of the artefact.")
    reason: str = Field(max_length=64, description="Why, in one PascalCase word.")
    time: Timestamp = Field(description="When.")


class AdapterStatus(StatusModel):
    """How one name is."""

    name: str = Field(max_length=63, description="The stable name.")
    phase: AdapterPhase = Field(description="How it is, for people.")
    reason: str | None = Field(None, max_length=64, description="Why, in one PascalCase word.")
    message: str | None = Field(None, max_length=512, description="Why, in a sentence.")
    evaluated: str | None = Field(
        None, max_length=32, description="What the EvalRun of the newest version said, or Unevaluated."
    )
    stable: StableVersion | None = Field(None, description="The version that the name stands for.")
    candidate: CandidateVersion | None = Field(None, description="The version that is to take over.")
    history: Annotated[tuple[PastVersion, ...], Field(max_length=MAX_HISTORY)] = Field(
        (), description="The last promoted versions, newest first."
    )
    rejected: Annotated[tuple[RejectedDigest, ...], Field(max_length=MAX_REJECTED)] = Field(
        (),
        description="The artefacts last taken back, newest first. None taken back is ever promoted again.",
        json_schema_extra=keyed_by("digest"),
    )


class PodStatus(StatusModel):
    """What one pod holds."""

    name: str = Field(max_length=253, description="Name of the pod.")
    ready: bool = Field(description="Whether it takes requests.")
    generation: int = Field(0, ge=0, description="The desired state that it last acted on.")
    loaded: Annotated[
        tuple[Annotated[str, Field(max_length=80)], ...], Field(max_length=2 * MAX_ADAPTERS)
    ] = Field(
        (), description="What it holds, as name@digest.", json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    message: str | None = Field(None, max_length=512, description="What is missing, and why.")


class AdapterDeploymentStatus(StatusModel):
    """What is served, and where."""

    conditions: Conditions = ()
    observed_generation: int = Field(0, ge=0, description="The metadata.generation that status speaks of.")
    url: str | None = Field(
        None, max_length=512, description="Where clients in the cluster send requests (OpenAI's API)."
    )
    replicas: int = Field(0, ge=0, description="Pods there are.")
    ready_replicas: int = Field(0, ge=0, description="Pods that take requests.")
    adapters_stable: str | None = Field(
        None, max_length=8, description="Adapters that are stable, of all, such as 2/3."
    )
    generation: int = Field(0, ge=0, description="The desired state that the pods are told.")
    update_time: Timestamp | None = Field(
        None, description="When status was last written; numbers alone are written every 10 s at most."
    )
    adapters: Annotated[tuple[AdapterStatus, ...], Field(max_length=MAX_ADAPTERS)] = Field(
        (), description="How each name is.", json_schema_extra=keyed_by("name")
    )
    pods: Annotated[tuple[PodStatus, ...], Field(max_length=MAX_PODS)] = Field(
        (), description="What each pod holds; the first 32.", json_schema_extra=keyed_by("name")
    )


class AdapterDeployment(Resource):
    """Serves many adapters on one base model and lets new versions take over step by step."""

    kind_name: ClassVar[str] = "AdapterDeployment"
    plural: ClassVar[str] = "adapterdeployments"
    short_name: ClassVar[str] = "ad"

    kind: Literal["AdapterDeployment"] = "AdapterDeployment"
    spec: AdapterDeploymentSpec = Field(description="What to serve, on what, and how new versions come in.")
    status: AdapterDeploymentStatus = Field(
        AdapterDeploymentStatus(), description="What is served, and where. Written by the operator alone."
    )
