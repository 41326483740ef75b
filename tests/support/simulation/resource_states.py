"""Resources of the three kinds in each state that the operator writes, and what GitOps tools should make of them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from simulation.evaluation_world import World as EvaluationWorld
from simulation.evaluation_world import tuned
from simulation.search_world import SEARCH
from simulation.serving_world import NAME, NAMESPACE, build_adapter
from simulation.serving_world import World as ServingWorld
from simulation.simulated_cluster import (
    START,
    SimulatedCluster,
    evaluation_report,
    failure,
    fine_tune_job,
)
from simulation.training_world import World as TrainingWorld
from simulation.training_world import generating, training, world

from tunesmith.api import GROUP, KINDS, VERSION
from tunesmith.api.crd import build_schema
from tunesmith.decide.refusal import RefusalReason, plan_invalid, plan_refusal
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.report import Interval

Body = dict[str, Any]


class ResourceState(NamedTuple):
    """A resource, its status by kstatus, and its health in Argo CD."""

    title: str
    body: Body
    kstatus: str
    health: str


def resource_states() -> list[ResourceState]:
    """All states, those of each kind by the phases of its life."""
    return [*_jobs(), *_runs(), *_deployments(), *_unread()]


def _of(cluster: SimulatedCluster) -> Body:
    status = {**cluster.status, "conditions": [dict(item) for item in cluster.status["conditions"]]}
    return {**cluster.resource, "status": status}


def _jobs() -> Iterator[ResourceState]:
    yield ResourceState("a job whose rows are prepared", _of(world()), "InProgress", "Progressing")
    yield ResourceState("a job whose rows are generated", _of(generating()), "InProgress", "Progressing")
    queued = TrainingWorld(fine_tune_job())
    queued.resource["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus"}
    queued.reconcile()
    yield ResourceState("a job in a queue", _of(queued), "InProgress", "Progressing")
    yield ResourceState("a job that trains", _of(training()), "InProgress", "Progressing")
    yield ResourceState("a search", _of(training(search=SEARCH)), "InProgress", "Progressing")
    yield ResourceState("a suspended job", _of(world(suspend=True)), "InProgress", "Suspended")
    retried = training()
    retried.end(ExitCode.COMMUNICATION)
    yield ResourceState("a job that is tried again", _of(retried), "InProgress", "Progressing")
    refused = TrainingWorld(fine_tune_job())
    refused.refuses["Job"] = "exceeded quota"
    refused.reconcile()
    yield ResourceState("a job whose Job is refused", _of(refused), "InProgress", "Progressing")
    done = training()
    done.succeed("train")
    yield ResourceState("a job that succeeded", _of(done), "Current", "Healthy")
    failed = training()
    failed.end(ExitCode.USER_ERROR, failure("train", "UserError"))
    yield ResourceState("a job that failed", _of(failed), "Failed", "Degraded")
    deleted = _of(training())
    deleted["metadata"] = {**deleted["metadata"], "deletionTimestamp": "2030-01-01T00:00:00Z"}
    yield ResourceState("a job that is deleted", deleted, "Terminating", "Progressing")


def _runs() -> Iterator[ResourceState]:
    waiting = EvaluationWorld()
    waiting.reconcile()
    yield ResourceState("an evaluation without a candidate", _of(waiting), "InProgress", "Progressing")
    running = EvaluationWorld(tuned())
    running.reconcile()
    yield ResourceState("an evaluation that runs", _of(running), "InProgress", "Progressing")
    for title, delta in (
        ("passed", Interval(0.4, 0.3, 0.5)),
        ("did not pass", Interval(-0.4, -0.5, -0.3)),
        ("was inconclusive", Interval(0.1, -0.3, 0.5)),
    ):
        judged = EvaluationWorld(tuned())
        judged.reconcile()
        judged.end(0, evaluation_report(delta))
        yield ResourceState(f"an evaluation that {title}", _of(judged), "Current", "Healthy")
    failed = EvaluationWorld(tuned())
    failed.reconcile()
    failed.end(ExitCode.DATA_ERROR, failure("evaluate", "DataError"))
    yield ResourceState("an evaluation that failed", _of(failed), "Failed", "Degraded")


def serving_body(world: ServingWorld) -> Body:
    """The AdapterDeployment of a world as the API server returns it."""
    metadata = {"name": NAME, "namespace": NAMESPACE, "generation": world.generation}
    api_version = f"{GROUP}/{VERSION}"
    return {
        "apiVersion": api_version,
        "kind": "AdapterDeployment",
        "metadata": metadata,
        "spec": world.spec,
        "status": world.status,
    }


def settled(*adapters: Body, **spec: Any) -> ServingWorld:
    """Serving pods that hold these adapters."""
    world = ServingWorld(*adapters, **spec)
    world.runs_pods = True
    world.settle()
    return world


def canary(**fields: Any) -> ServingWorld:
    """Another version at its first step."""
    world = settled(build_adapter("one"))
    world.set_adapter(build_adapter("two", **fields))
    world.settle()
    return world


def _deployments() -> Iterator[ResourceState]:
    def state(title: str, world: ServingWorld, kstatus: str, health: str) -> ResourceState:
        return ResourceState(title, serving_body(world), kstatus, health)

    starting = ServingWorld(build_adapter("one"))
    starting.reconcile()
    yield state("pods that start", starting, "InProgress", "Progressing")
    stable = settled(build_adapter("one"))
    yield state("a stable version", stable, "Current", "Healthy")
    empty = settled()
    yield state("no adapters", empty, "Current", "Healthy")
    none = settled(build_adapter("one"))
    none.spec, none.generation = none.spec | {"replicas": 0}, 2
    none.settle()
    yield state("no replicas", none, "Current", "Healthy")
    yield state("a rollout", canary(), "InProgress", "Progressing")
    yield state("a rollout that the spec pauses", canary(paused=True), "InProgress", "Suspended")
    paused = canary()
    paused.ask("pause")
    yield state("a rollout that an action pauses", paused, "InProgress", "Suspended")
    promoted = canary()
    promoted.pass_seconds(600)
    yield state("a version that was promoted", promoted, "Current", "Healthy")
    aborted = canary()
    aborted.ask("abort")
    aborted.settle()
    yield state("a version that was rejected", aborted, "Failed", "Degraded")
    blocked = canary(requireEvalRun={})
    yield state("a version without an evaluation", blocked, "InProgress", "Progressing")
    source = settled({"name": "expenses", "source": {"fineTuneJobRef": {"name": "tune"}}})
    yield state("an adapter whose job does not exist", source, "InProgress", "Progressing")
    unreachable = settled(build_adapter("one"), artifactVolumes=[])
    yield state("an artifact that pods can't read", unreachable, "Failed", "Degraded")
    changed = settled(build_adapter("one"))
    changed.set_adapter(build_adapter("two"))
    yield state("a change that was not seen yet", changed, "InProgress", "Progressing")


def _unread() -> Iterator[ResourceState]:
    """Resources that the operator has not read, or can't read."""
    bodies: dict[str, Body] = {
        "FineTuneJob": training().resource,
        "EvalRun": EvaluationWorld(tuned()).resource,
        "AdapterDeployment": serving_body(settled(build_adapter("one"))),
    }
    for kind in KINDS:
        body = bodies[kind.kind_name]
        unseen = build_schema(kind)["properties"]["status"]["default"]
        title = f"{kind.kind_name} that was just created"
        yield ResourceState(title, {**body, "status": unseen}, "InProgress", "Progressing")
        changed = {**body, "metadata": {**body["metadata"], "generation": 9}}
        invalid = plan_invalid(changed, ValueError("spec: write another value"), START).status
        title = f"{kind.kind_name} that is invalid"
        yield ResourceState(title, {**changed, "status": invalid}, "Failed", "Degraded")
        refused = plan_refusal(changed, RefusalReason.UNAVAILABLE, "no answer", START).status
        title = f"{kind.kind_name} whose reconcile fails"
        yield ResourceState(title, {**changed, "status": refused}, "InProgress", "Progressing")
