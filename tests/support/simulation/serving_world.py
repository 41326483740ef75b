"""A small world around ``plan_serving``: an API server's objects, pods with agents, a clock. All in memory."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from simulation.judged_runs import judged_run

from tunesmith.api import AdapterDeployment
from tunesmith.api.actions import ACTION_ANNOTATION
from tunesmith.controller_runtime.errors import Conflict
from tunesmith.decide.plan import Apply, Create, Delete, Event, Mount, Patch, Plan, Push, Replace, Tell
from tunesmith.decide.serving.admission.evaluations import ObservedEvalRun
from tunesmith.decide.serving.planning import ObservedServing, plan_serving
from tunesmith.decide.serving.pods.engine_memory import asks_for_nodes, find_base_model
from tunesmith.decide.serving.pods.fleet import Agent
from tunesmith.decide.serving.records.record import AliasRecord
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import STAGE_LABEL
from tunesmith.manifests.serving_config_maps import (
    RECORD_KEY,
    alias_of,
    build_record_data,
    history_name,
    with_desired,
)
from tunesmith.manifests.serving_deployment import base_model_uri, serving_image
from tunesmith.manifests.verdict_records import VerdictRecord, build_verdicts, number_of, read_verdicts
from tunesmith_contract.agent import (
    FEATURES,
    PROOF_FAILED,
    UNPROVEN,
    AccessReport,
    AgentReport,
    DesiredState,
    LoadedVersion,
    LoadState,
    UsageOfOthers,
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


#: Errors in a row after which an agent sends no more requests to a candidate.
BREAKER_ERRORS = 5


@dataclass
class FakePod:
    """A serving pod and its agent, which holds at once what it is told to.

    Attributes:
        features: what its agent understands of the protocol; nothing: one of the first release.
        tripped: versions whose breaker is open, by alias and digest.
        breaker_clients: clients that saw the errors that opened these.
        desired: the state that it applied last.
        slots: number of adapters that its engine keeps in memory; 0: an agent that does not say it.
        told: the operator that leads has sent it a state.
        heard: it has reported to the operator that leads.
        is_slow: it does not act yet on what it is told.
    """

    name: str
    uid: str
    boot: int = 0
    ready: bool = True
    connected: bool = True
    engine_ready: bool = True
    generation: int = 0
    features: tuple[str, ...] = FEATURES
    created: datetime | None = None
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    counters: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    tripped: set[tuple[str, str]] = field(default_factory=set)
    breaker_clients: int = 0
    refuting: dict[str, str] = field(default_factory=dict)
    desired: DesiredState | None = None
    unschedulable: str = ""
    access: AccessReport | None = None
    slots: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    base_model: str = ""

    @property
    def address(self) -> str:
        """IP address of the pod."""
        return f"10.0.0.{1 + sum(self.uid.encode()) % 250}"

    told: bool = True
    heard: bool = True
    is_slow: bool = False

    def take(self, desired: DesiredState) -> None:
        """Act on a desired state; an older one is left out."""
        self.told = True
        if self.is_slow:
            return
        desired = desired.for_features(self.features)
        if desired.generation < self.generation:
            return
        if desired.generation == self.generation and self.desired is not None:
            return
        self.generation, self.desired = desired.generation, desired
        self.aliases = {
            alias.name: tuple(
                version.digest for version in (alias.stable, alias.candidate, alias.previous) if version
            )
            for alias in desired.for_base_model(self.base_model).aliases
        }

    def learn(self, usage: UsageOfOthers) -> None:
        """Take over what other pods have counted."""
        assert self.access is not None
        others = {(each.client, each.period): each.tokens for each in usage.counted_by_others}
        known = (
            each.model_copy(update={"others": others.get((each.client, each.period), each.others)})
            for each in self.access.usage
        )
        self.access = self.access.model_copy(update={"usage": tuple(known)})

    def restart_agent(self) -> None:
        """Another life: counters from zero, nothing held."""
        self.boot += 1
        self.counters, self.aliases, self.generation, self.desired = {}, {}, 0, None
        self.tripped = set()

    def serve(
        self, alias: str, digest: str, requests: int, errors: int = 0, keys: int | None = None, **ends: int
    ) -> None:
        """Answer requests; by default each has a key of its own.

        Args:
            keys: number of keys that the requests and the errors are shared by alike.
            ends: further ends of requests, by the names of ``VersionCounters``.
        """
        number = requests if keys is None else keys
        failures = errors + ends.get("abandoned", 0)
        added = {"requests": requests, "errors": errors, "keys": number, **ends}
        if number:
            each = requests // number
            failing = failures // each if each else 0
            added |= {
                "requests_squared": number * each * each,
                "failures_squared": failing * each * each,
                "requests_failures": failing * each * each,
            }
        counts = self.counters.setdefault((alias, digest), {})
        for name, count in added.items():
            counts[name] = counts.get(name, 0) + count

    def serve_candidate(self, alias: str, digest: str, requests: int, failing: bool) -> None:
        """Answer requests of a candidate; those beyond five errors in a row go to the stable version."""
        if not failing:
            self.serve(alias, digest, requests)
            return
        sent = 0 if (alias, digest) in self.tripped else min(requests, BREAKER_ERRORS)
        if sent == BREAKER_ERRORS:
            self.tripped.add((alias, digest))
        self.serve(alias, digest, sent, sent, refused=requests - sent)

    def to_body(self) -> dict[str, Any]:
        """The pod as the API server gives it."""
        conditions = [{"type": "Ready", "status": "True" if self.ready else "False"}]
        if self.unschedulable:
            conditions.append({"type": "PodScheduled", "status": "False", "message": self.unschedulable})
        metadata: dict[str, Any] = {"name": self.name, "uid": self.uid, "labels": self.labels}
        if self.created is not None:
            metadata["creationTimestamp"] = self.created.isoformat()
        variables = [{"name": "TUNESMITH_BASE_MODEL_URI", "value": self.base_model}]
        spec = {"containers": [{"env": variables}]} if self.base_model else {}
        return {
            "metadata": metadata,
            "spec": spec,
            "status": {"conditions": conditions, "podIP": self.address},
        }


class World:
    """Objects by kind and name, and what carries out plans.

    Attributes:
        runs_pods: pods follow the Deployments, as if there were nodes; otherwise a test makes them.
        unstartable: images whose pods never get ready.
        forgetful: images whose pods load no version.
        led_since: the time at which the operator began to lead.
        offered: the state that it sends to each agent that connects.
        trained_on: base models of artifacts, by digest; others fit on each model.
    """

    def __init__(self, *adapters: dict[str, Any], replicas: int = 2, pods: int = 2, **spec: Any) -> None:
        self.now = START
        self.led_since = START - timedelta(hours=1)
        self.offered: DesiredState | None = None
        self.uid = UID
        self.version = 0
        self.ended: list[AgentReport] = []
        self.refused: set[str] = set()
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
        self.annotations: dict[str, str] = {}
        self.writers: list[dict[str, Any]] = []
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any] | None] = {}
        self.eval_runs: list[ObservedEvalRun] = []
        self.verdicts: list[dict[str, Any]] = []
        self.pods = {f"pod-{index}": FakePod(f"pod-{index}", f"uid-{index}") for index in range(pods)}
        self.records: tuple[dict[str, Any], ...] = ()
        self.nodes: tuple[dict[str, Any], ...] = ()
        self.claims: dict[str, tuple[str, ...]] | None = None
        self.failing: dict[str, tuple[str, str]] = {}
        self.permanent: set[str] = set()
        self.slow: set[str] = set()
        self.unproven: dict[str, str] = {}
        self.environment = ENVIRONMENT
        self.runs_pods = False
        self.unstartable: set[str] = set()
        self.forgetful: set[str] = set()
        self.trained_on: dict[str, str] = {}
        self.created = 0
        self.images: dict[str, str] = {}
        self.events: list[Event] = []
        self.plan = Plan()

    # What a person or a cluster does.

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass, and reconcile whenever the operator wants to, or agents report."""
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            wanted = self.plan.requeue_after or 10.0
            self.now = min(self.now + timedelta(seconds=min(max(wanted, 1.0), 10.0)), end)
            self.settle()
        self.settle()

    def jump(self, seconds: float) -> None:
        """The clock of the operator's node is set."""
        self.now += timedelta(seconds=seconds)
        self.led_since += timedelta(seconds=seconds)

    def replace_operator(self) -> None:
        """Another operator leads; no agent is connected to it yet."""
        self.environment = replace(self.environment, term=self.environment.term + 1)
        self.led_since, self.offered = self.now, None
        for pod in self.pods.values():
            pod.connected = pod.told = pod.heard = False

    def connect(self, name: str) -> None:
        """The agent of a pod connects, and reports."""
        pod = self.pods[name]
        pod.connected, pod.heard, pod.told = True, True, False
        if self.offered is not None:
            pod.take(self.offered)

    def remove_pod(self, name: str) -> None:
        """A pod goes away; its agent has reported just before."""
        self.ended.append(self.report(self.pods.pop(name)))

    def restart_agent(self, name: str) -> None:
        """The agent of a pod begins anew; it has reported just before."""
        self.ended.append(self.report(self.pods[name]))
        self.pods[name].restart_agent()

    def recreate(self) -> None:
        """The resource is deleted with all that it owns, and applied again."""
        self.uid = "1a2b3c4d-1111-2222-3333-444455556666"
        kept = [key for key, body in self.objects.items() if "ownerReferences" not in body["metadata"]]
        self.objects = {key: self.objects[key] for key in kept}
        self.status = {}
        self.pods = {
            f"new-{index}": FakePod(f"new-{index}", f"new-uid-{index}") for index in range(len(self.pods))
        }

    def edit(self, name: str, key: str, text: str | None) -> None:
        """Change a ConfigMap by hand; without a text the key is removed."""
        body = self.objects["ConfigMap", name]
        data = {**body["data"], key: text} if text is not None else {}
        self.objects["ConfigMap", name] = self._versioned({**body, "data": data})

    def record_text(self, alias: str = "expenses") -> str:
        """The record of an alias as it is stored."""
        text: str = self.objects["ConfigMap", self.record_name(alias)]["data"][RECORD_KEY]
        return text

    def put_record(self, record: AliasRecord) -> None:
        """Store a record as the operator does."""
        name = self.record_name(record.name)
        body = self.objects["ConfigMap", name]
        self.objects["ConfigMap", name] = self._versioned(
            {**body, "data": build_record_data(record.to_json())}
        )

    def record_name(self, alias: str = "expenses") -> str:
        """Name of the ConfigMap with the record of an alias."""
        names = (str(name) for (_, name), body in self.objects.items() if alias_of(body) == alias)
        return next(names)

    def set_adapter(self, adapter: dict[str, Any]) -> None:
        """Apply an adapter."""
        others = [other for other in self.spec["adapters"] if other["name"] != adapter["name"]]
        self.spec = self.spec | {"adapters": [*others, adapter]}
        self.generation += 1

    def annotate(self, text: str, manager: str = "kubectl-annotate") -> None:
        """Write the annotation for actions."""
        self.annotations = {ACTION_ANNOTATION: text}
        fields: dict[str, Any] = {"f:metadata": {"f:annotations": {f"f:{ACTION_ANNOTATION}": {}}}}
        self.writers = [{"manager": manager, "time": self.now.isoformat(), "fieldsV1": fields}]

    def ask(self, verb: str, identity: str = "", adapter: str = "expenses", **fields: Any) -> dict[str, Any]:
        """Ask for an action, and reconcile; returns its result in the status."""
        identity = identity or f"action-{self.now.timestamp():.0f}-{verb}"
        self.annotate(json.dumps({"id": identity, "adapter": adapter, "verb": verb, **fields}))
        self.settle()
        actions: list[dict[str, Any]] = self.adapter(adapter)["actions"]
        return actions[0]

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

    def change_engine(self, **engine: Any) -> None:
        """Write fields of the engine."""
        self.spec = self.spec | {"engine": self.spec["engine"] | engine}
        self.generation += 1

    def run_pods(self) -> None:
        """Make and remove pods, as the Deployments say, and let them start; a set is never mixed."""
        wanted: dict[str, dict[str, Any]] = {}
        for body in self.of_kind("Deployment"):
            for index in range(body["spec"]["replicas"]):
                wanted[f"{body['metadata']['name']}-{index}"] = body
        for name in [name for name in self.pods if name not in wanted]:
            self.remove_pod(name)
        for name, body in wanted.items():
            image = serving_image(body)
            if name in self.pods and self.images.get(name) != image:
                self.remove_pod(name)
            if name not in self.pods:
                self.created += 1
                labels = body["spec"]["template"]["metadata"]["labels"]
                self.pods[name] = FakePod(
                    name,
                    f"uid-{self.created}",
                    labels=labels,
                    created=self.now,
                    base_model=base_model_uri(body),
                )
                self.images[name] = image
                self.pods[name].take(self.desired)
            pod = self.pods[name]
            pod.connected = pod.ready = image not in self.unstartable
        self._count_pods()

    def _count_pods(self) -> None:
        for body in self.objects.values():
            if body["kind"] == "Deployment":
                name, replicas = body["metadata"]["name"], body["spec"]["replicas"]
                own = [self.pods[f"{name}-{index}"] for index in range(replicas)]
                body["status"] |= {
                    "replicas": replicas,
                    "updatedReplicas": replicas,
                    "availableReplicas": sum(pod.ready for pod in own),
                }

    def selected_pods(self) -> list[FakePod]:
        """Ready pods that the Service sends requests to."""
        service = self.find("Service")
        selector = service["spec"]["selector"] if service else {}
        return [
            pod
            for pod in self.pods.values()
            if pod.ready and service and selector.items() <= pod.labels.items()
        ]

    # What the operator does.

    def observe(self) -> ObservedServing:
        """What ``observe_adapterdeployment`` would read."""
        return ObservedServing(
            config_maps=tuple(
                body for body in self.of_kind("ConfigMap") if body["metadata"].get("ownerReferences")
            ),
            history=_copied(self.objects.get(("ConfigMap", history_name(NAME)))),
            deployments=self.of_kind("Deployment"),
            service=self.find("Service"),
            disruption_budget=self.find("PodDisruptionBudget"),
            claims=self.claims,
            network_policy=self.find("NetworkPolicy"),
            revisions=self.of_kind("ControllerRevision"),
            pods=tuple(pod.to_body() for pod in self.pods.values()),
            agents=(
                *(Agent(report, False, True) for report in self.ended),
                *(
                    Agent(self.report(pod), pod.connected, told=pod.told)
                    for pod in self.pods.values()
                    if pod.heard
                ),
            ),
            leading_seconds=(self.now - self.led_since).total_seconds(),
            jobs=self.jobs,
            eval_runs=tuple(self.eval_runs),
            verdicts=tuple(self.verdicts),
            records=self.records,
            nodes=self.nodes if asks_for_nodes(self.resource, find_base_model(self.records)) else None,
        )

    def reconcile(self, actions: int | None = None) -> Plan:
        """One pass; killed after so many actions, before status."""
        plan = self.plan = plan_serving(self.resource, self.observe(), self.now, self.environment)
        self.carry_out(plan, actions)
        return plan

    def carry_out(self, plan: Plan, actions: int | None = None) -> None:
        """Carry out a plan, perhaps a part of it; as ``execute`` does.

        Raises:
            Conflict: an object has changed since it was observed.
        """
        unwritten: set[str] = set()
        for action in plan.actions[:actions]:
            alias = action.alias if isinstance(action, Create | Patch | Replace) else ""
            if alias in unwritten:
                continue
            if alias in self.refused:
                unwritten.add(alias)
                continue
            self.act(action, frozenset(unwritten))
        is_complete = actions is None or actions > len(plan.actions)
        if is_complete and not unwritten:
            self.status = self.status if plan.status is None else _copied(plan.status)
            self.events += plan.events

    def settle(self, passes: int = 6) -> None:
        """Reconcile until nothing is left to do now."""
        for _ in range(passes):
            actions = self.reconcile().actions
            if self.runs_pods:
                self.run_pods()
            if not actions:
                return

    def act(self, action: Any, unwritten: frozenset[str] = frozenset()) -> None:
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
            case Replace(manifest):
                self._replace(manifest)
            case Mount(manifest, publication):
                self._replace(with_desired(manifest, publication.without(unwritten)))
            case Push(publication):
                self.offered = publication.without(unwritten)
                for pod in self.pods.values():
                    if pod.connected:
                        pod.take(self.offered)
            case Tell(usage):
                for pod in self.pods.values():
                    if pod.connected and pod.uid in usage:
                        pod.learn(usage[pod.uid])

    def _replace(self, manifest: dict[str, Any]) -> None:
        known = self.objects.get(_key(manifest))
        expected = known["metadata"].get("resourceVersion") if known else None
        if manifest["metadata"].get("resourceVersion") != expected:
            raise Conflict(f"{manifest['metadata']['name']} has been modified", 409, "Conflict")
        self.objects[_key(manifest)] = self._stored(manifest)

    # What a test looks at.

    @property
    def resource(self) -> AdapterDeployment:
        """The resource as it is parsed."""
        metadata = {
            "name": NAME,
            "namespace": NAMESPACE,
            "uid": self.uid,
            "generation": self.generation,
            "annotations": self.annotations,
            "managedFields": self.writers,
        }
        body = {"metadata": metadata, "kind": "AdapterDeployment", "spec": self.spec, "status": self.status}
        return AdapterDeployment.parse(body)

    def report(self, pod: FakePod) -> AgentReport:
        """What the pod's agent says."""
        versions = tuple(
            self._loaded(pod, alias, digest) for alias, digests in pod.aliases.items() for digest in digests
        )
        counters = tuple(
            VersionCounters(alias=alias, digest=digest, **counts)
            for (alias, digest), counts in pod.counters.items()
        )
        return AgentReport(
            pod_name=pod.name,
            pod_uid=pod.uid,
            boot_id=f"{pod.uid}-{pod.boot}",
            engine_ready=pod.engine_ready,
            applied_generation=pod.generation,
            applied_digest=pod.desired.digest() if pod.desired and pod.features else "",
            features=pod.features,
            versions=versions,
            counters=counters,
            access=pod.access,
            adapter_slots=pod.slots,
        )

    def of_kind(self, kind: str) -> tuple[dict[str, Any], ...]:
        """All objects of a kind."""
        return tuple(_copied(body) for (found, _), body in self.objects.items() if found == kind)

    def find(self, kind: str) -> dict[str, Any] | None:
        """The only object of a kind, if there is one."""
        return next(iter(self.of_kind(kind)), None)

    @property
    def desired(self) -> DesiredState:
        """What the pods are told by the ConfigMap."""
        maps = self.of_kind("ConfigMap")
        found = next(body for body in maps if body["metadata"]["labels"][STAGE_LABEL] == "desired")
        return DesiredState.model_validate_json(found["data"]["state.json"])

    def record(self, alias: str = "expenses") -> AliasRecord:
        """The stored record of an alias."""
        body = self.objects["ConfigMap", self.record_name(alias)]
        return AliasRecord.read(body["data"][RECORD_KEY])

    def adapter(self, name: str = "expenses") -> dict[str, Any]:
        """The status of an alias."""
        return next(adapter for adapter in self.status["adapters"] if adapter["name"] == name)

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition of the resource."""
        return next(condition for condition in self.status["conditions"] if condition["type"] == kind)

    def reasons(self) -> list[str]:
        """The reasons of the events so far."""
        return [str(event.reason) for event in self.events]

    def _loaded(self, pod: FakePod, alias: str, digest: str) -> LoadedVersion:
        if self.images.get(pod.name) in self.forgetful:
            return LoadedVersion(alias=alias, digest=digest, state=LoadState.LOADING)
        if self.trained_on.get(digest, pod.base_model) != pod.base_model:
            return LoadedVersion(
                alias=alias,
                digest=digest,
                state=LoadState.FAILED,
                reason="WrongBaseModel",
                message="it was trained on another model",
                permanent=True,
            )
        if digest in self.failing or digest in pod.refuting:
            reason, message = self.failing.get(digest) or (PROOF_FAILED, pod.refuting[digest])
            return LoadedVersion(
                alias=alias,
                digest=digest,
                state=LoadState.FAILED,
                reason=reason,
                message=message,
                permanent=digest in self.permanent and bool(pod.features),
            )
        state = LoadState.LOADING if digest in self.slow else LoadState.ACTIVE
        if state is LoadState.ACTIVE and digest in self.unproven:
            message = self.unproven[digest]
            return LoadedVersion(alias=alias, digest=digest, state=state, reason=UNPROVEN, message=message)
        is_open = (alias, digest) in pod.tripped
        clients = pod.breaker_clients if is_open else 0
        return LoadedVersion(
            alias=alias, digest=digest, state=state, breaker_open=is_open, breaker_clients=clients
        )

    def _stored(self, manifest: dict[str, Any]) -> dict[str, Any]:
        stored = _copied(manifest)
        stored["metadata"].setdefault("uid", f"uid-of-{stored['metadata']['name']}")
        if stored["kind"] == "Deployment":
            ready = stored["spec"]["replicas"]
            counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), ready)
            stored["status"] = {**counts, "observedGeneration": 1}
            stored["metadata"]["generation"] = 1
            known = self.objects.get(_key(stored), {}).get("metadata", {})
            stored["metadata"]["creationTimestamp"] = known.get("creationTimestamp", self.now.isoformat())
        return self._versioned(stored)

    def _versioned(self, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        return body


def _copied(body: Any) -> Any:
    """A copy, as the API server would give it."""
    return orjson.loads(orjson.dumps(body))


def _key(manifest: dict[str, Any]) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _merge(body: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(body.setdefault(key, {}), value)
        else:
            body[key] = value
