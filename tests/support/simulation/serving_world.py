"""A small world around ``plan_serving``: an API server's objects, pods with agents, a clock. All in memory."""

import copy
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from simulation.judged_runs import judged_run

from tunesmith.api import AdapterDeployment
from tunesmith.decide.plan import Apply, Create, Delete, Event, Patch, Plan, Push
from tunesmith.decide.serving.engine_memory import asks_for_nodes, find_base_model
from tunesmith.decide.serving.evaluations import ObservedEvalRun
from tunesmith.decide.serving.fleet import Agent
from tunesmith.decide.serving.planning import ObservedServing, plan_serving
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import STAGE_LABEL
from tunesmith.manifests.verdict_records import VerdictRecord, build_verdicts, number_of, read_verdicts
from tunesmith_contract.agent import (
    UNPROVEN,
    AgentReport,
    DesiredState,
    LoadedVersion,
    LoadState,
    VersionCounters,
)
from tunesmith_contract.shared_rules.verdict import Verdict

NAME, NAMESPACE, UID = "assistants", "team", "0f3c9d52-1111-2222-3333-444455556666"
START = datetime(2030, 1, 1, tzinfo=UTC)
ENVIRONMENT = Environment(
    trainer_image="registry/trainer:1",
    serving_image="registry/serving:1",
    serving_gpu_image="registry/serving-gpu:1",
    operator_url="https://tunesmith.tunesmith-system.svc:8443",
    ca_bundle="PEM",
)

ROLLOUT = {
    "steps": [{"weight": 5, "pause": "1m"}, {"weight": 25, "pause": "2m"}, {"weight": 100}],
    "analysis": {"interval": "10s", "minimumRequests": 0},
}


def digest_of(word: str) -> str:
    """A digest for a test's word."""
    return "sha256:" + hashlib.sha256(word.encode()).hexdigest()


def build_adapter(word: str, name: str = "expenses", **fields: Any) -> dict[str, Any]:
    """An adapter whose artifact is named by uri and digest, and needs no EvalRun."""
    source = {"uri": f"pvc://artifacts/{word}", "digest": digest_of(word)}
    return {
        "name": name,
        "source": source,
        "requireEvalRun": {"verdict": "None"},
        "rollout": ROLLOUT,
        **fields,
    }


@dataclass
class FakePod:
    """A serving pod and its agent, which holds at once what it is told to."""

    name: str
    uid: str
    boot: int = 0
    ready: bool = True
    connected: bool = True
    generation: int = 0
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    counters: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    unschedulable: str = ""

    def take(self, desired: DesiredState) -> None:
        """Act on a desired state; an older one is left out."""
        if desired.generation < self.generation:
            return
        self.generation = desired.generation
        self.aliases = {
            alias.name: tuple(version.digest for version in (alias.stable, alias.candidate) if version)
            for alias in desired.aliases
        }

    def restart_agent(self) -> None:
        """Another life: counters from zero, nothing held."""
        self.boot += 1
        self.counters, self.aliases, self.generation = {}, {}, 0

    def serve(self, alias: str, digest: str, requests: int, errors: int = 0) -> None:
        """Answer requests."""
        counts = self.counters.setdefault((alias, digest), [0, 0])
        counts[0] += requests
        counts[1] += errors

    def to_body(self) -> dict[str, Any]:
        """The pod as the API server gives it."""
        conditions = [{"type": "Ready", "status": "True" if self.ready else "False"}]
        if self.unschedulable:
            conditions.append({"type": "PodScheduled", "status": "False", "message": self.unschedulable})
        return {"metadata": {"name": self.name, "uid": self.uid}, "status": {"conditions": conditions}}


class World:
    """Objects by kind and name, and what carries out plans."""

    def __init__(self, *adapters: dict[str, Any], replicas: int = 2, pods: int = 2, **spec: Any) -> None:
        self.now = START
        self.spec: dict[str, Any] = {
            "baseModel": {"uri": "pvc://models/base"},
            "replicas": replicas,
            "engine": {"gpus": 0},
            "artifactVolumes": [{"claim": "artifacts"}],
            "adapters": list(adapters),
            **spec,
        }
        self.status: dict[str, Any] = {}
        self.generation = 1
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any] | None] = {}
        self.eval_runs: list[ObservedEvalRun] = []
        self.verdicts: list[dict[str, Any]] = []
        self.pods = {f"pod-{index}": FakePod(f"pod-{index}", f"uid-{index}") for index in range(pods)}
        self.records: tuple[dict[str, Any], ...] = ()
        self.nodes: tuple[dict[str, Any], ...] = ()
        self.failing: dict[str, tuple[str, str]] = {}
        self.slow: set[str] = set()
        self.unproven: dict[str, str] = {}
        self.environment = ENVIRONMENT
        self.events: list[Event] = []
        self.plan = Plan()

    # What a person or a cluster does.

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass, and reconcile."""
        self.now += timedelta(seconds=seconds)
        self.settle()

    def set_adapter(self, adapter: dict[str, Any]) -> None:
        """Apply an adapter."""
        others = [other for other in self.spec["adapters"] if other["name"] != adapter["name"]]
        self.spec = self.spec | {"adapters": [*others, adapter]}
        self.generation += 1

    def add_unschedulable_pod(self, name: str, message: str) -> None:
        """A pod that no node takes."""
        self.pods[name] = FakePod(name, f"uid-of-{name}", ready=False, connected=False, unschedulable=message)

    def judge(self, name: str, word: str, verdict: str, policy_digest: str = "", **details: Any) -> None:
        """An EvalRun comes to a verdict."""
        run = judged_run(
            name, digest_of(word), verdict, self.now, policy_digest or digest_of("policy"), **details
        )
        self.eval_runs.append(run)
        self._keep_verdict(name, word, verdict, policy_digest or digest_of("policy"))

    def delete_run(self, name: str) -> None:
        """An EvalRun is deleted with its record; its verdict is kept."""
        self.eval_runs = [run for run in self.eval_runs if run.body["metadata"]["name"] != name]

    def _keep_verdict(self, name: str, word: str, verdict: str, policy_digest: str) -> None:
        digest = digest_of(word)
        record = VerdictRecord(
            uid=f"uid-of-{name}",
            name=name,
            policy_digest=policy_digest,
            verdict=Verdict(verdict),
            ended_at=self.now,
        )
        known = read_verdicts(self.verdicts, digest)
        numbered = record.model_copy(update={"run": number_of(record, known)})
        self.verdicts.append(build_verdicts(NAMESPACE, digest, numbered))

    def finish_job(self, name: str, word: str) -> None:
        """A FineTuneJob ends with an artifact."""
        artifact = {"uri": f"pvc://artifacts/{word}", "digest": digest_of(word)}
        self.jobs[name] = {"metadata": {"name": name}, "status": {"phase": "Succeeded", "artifact": artifact}}

    # What the operator does.

    def observe(self) -> ObservedServing:
        """What ``observe_adapterdeployment`` would read."""
        return ObservedServing(
            config_maps=self.of_kind("ConfigMap"),
            deployment=self.find("Deployment"),
            service=self.find("Service"),
            disruption_budget=self.find("PodDisruptionBudget"),
            revisions=self.of_kind("ControllerRevision"),
            pods=tuple(pod.to_body() for pod in self.pods.values()),
            agents=tuple(Agent(self.report(pod), pod.connected) for pod in self.pods.values()),
            jobs=self.jobs,
            eval_runs=tuple(self.eval_runs),
            verdicts=tuple(self.verdicts),
            records=self.records,
            nodes=self.nodes if asks_for_nodes(self.resource, find_base_model(self.records)) else None,
        )

    def reconcile(self, actions: int | None = None) -> Plan:
        """One pass; killed after so many actions, before status."""
        plan = self.plan = plan_serving(self.resource, self.observe(), self.now, self.environment)
        for action in plan.actions[:actions]:
            self.act(action)
        if actions is None or actions > len(plan.actions):
            self.status = self.status if plan.status is None else copy.deepcopy(plan.status)
            self.events += plan.events
        return plan

    def settle(self, passes: int = 6) -> None:
        """Reconcile until nothing is left to do now."""
        for _ in range(passes):
            if not self.reconcile().actions:
                return

    def act(self, action: Any) -> None:
        """Carry out one action as the API server would."""
        match action:
            case Create(manifest):
                self.objects.setdefault(_key(manifest), self._stored(manifest))
            case Apply(manifest):
                self.objects[_key(manifest)] = self._stored(manifest)
            case Patch(_, kind, _, name, patch):
                if (kind, name) in self.objects:
                    _merge(self.objects[kind, name], patch)
            case Delete(_, kind, _, name, _):
                self.objects.pop((kind, name), None)
            case Push(desired=desired):
                for pod in self.pods.values():
                    if pod.connected:
                        pod.take(desired)

    # What a test looks at.

    @property
    def resource(self) -> AdapterDeployment:
        """The resource as it is parsed."""
        metadata = {"name": NAME, "namespace": NAMESPACE, "uid": UID, "generation": self.generation}
        body = {"metadata": metadata, "kind": "AdapterDeployment", "spec": self.spec, "status": self.status}
        return AdapterDeployment.parse(body)

    def report(self, pod: FakePod) -> AgentReport:
        """What the pod's agent says."""
        versions = tuple(
            self._loaded(alias, digest) for alias, digests in pod.aliases.items() for digest in digests
        )
        counters = tuple(
            VersionCounters(alias=alias, digest=digest, requests=requests, errors=errors)
            for (alias, digest), (requests, errors) in pod.counters.items()
        )
        return AgentReport(
            pod_name=pod.name,
            pod_uid=pod.uid,
            boot_id=f"{pod.uid}-{pod.boot}",
            engine_ready=True,
            applied_generation=pod.generation,
            versions=versions,
            counters=counters,
        )

    def of_kind(self, kind: str) -> tuple[dict[str, Any], ...]:
        """All objects of a kind."""
        return tuple(copy.deepcopy(body) for (found, _), body in self.objects.items() if found == kind)

    def find(self, kind: str) -> dict[str, Any] | None:
        """The only object of a kind, if there is one."""
        return next(iter(self.of_kind(kind)), None)

    @property
    def desired(self) -> DesiredState:
        """What the pods are told by the ConfigMap."""
        maps = self.of_kind("ConfigMap")
        found = next(body for body in maps if body["metadata"]["labels"][STAGE_LABEL] == "desired")
        return DesiredState.model_validate_json(found["data"]["desired.json"])

    def adapter(self, name: str = "expenses") -> dict[str, Any]:
        """The status of an alias."""
        return next(adapter for adapter in self.status["adapters"] if adapter["name"] == name)

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition of the resource."""
        return next(condition for condition in self.status["conditions"] if condition["type"] == kind)

    def reasons(self) -> list[str]:
        """The reasons of the events so far."""
        return [str(event.reason) for event in self.events]

    def _loaded(self, alias: str, digest: str) -> LoadedVersion:
        if digest in self.failing:
            reason, message = self.failing[digest]
            return LoadedVersion(
                alias=alias, digest=digest, state=LoadState.FAILED, reason=reason, message=message
            )
        state = LoadState.LOADING if digest in self.slow else LoadState.ACTIVE
        if state is LoadState.ACTIVE and digest in self.unproven:
            message = self.unproven[digest]
            return LoadedVersion(alias=alias, digest=digest, state=state, reason=UNPROVEN, message=message)
        return LoadedVersion(alias=alias, digest=digest, state=state)

    def _stored(self, manifest: dict[str, Any]) -> dict[str, Any]:
        stored = copy.deepcopy(manifest)
        stored["metadata"].setdefault("uid", f"uid-of-{stored['metadata']['name']}")
        if stored["kind"] == "Deployment":
            ready = stored["spec"]["replicas"]
            counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), ready)
            stored["status"] = {**counts, "observedGeneration": 1}
            stored["metadata"]["generation"] = 1
        return stored


def _key(manifest: dict[str, Any]) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _merge(body: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(body.setdefault(key, {}), value)
        else:
            body[key] = value
