"""A FineTuneJob in the simulated cluster, and the operator's reconcile of it."""

from dataclasses import replace
from typing import Any

from simulation.simulated_cluster import (
    DIGEST,
    ENVIRONMENT,
    GENERATE,
    START,
    UID,
    SimulatedCluster,
    fine_tune_job,
    success,
)

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.finetunejob.observed import LiveProgress, RelatedObjects, assemble_training
from tunesmith.decide.finetunejob.planning import plan_training
from tunesmith.decide.plan import Create, Plan
from tunesmith.decide.run.children import Children
from tunesmith_contract.report import Checkpoint, Outcome, RunReport


class World(SimulatedCluster):
    """A cluster with a FineTuneJob, and the operator's reconcile."""

    progress: LiveProgress | None = None
    related: RelatedObjects = RelatedObjects()
    workloads: tuple[dict[str, Any], ...] | None = None

    def plan(self) -> Plan:
        job = FineTuneJob.parse(self.resource)
        jobs, pods, services = self.kept("Job"), self.kept("Pod"), tuple(self.children("Service"))
        children = Children((), jobs, pods, services, self.workloads)
        related = replace(self.related, eval_run=self.objects.get(("EvalRun", job.metadata.name)))
        config_maps, finished = self.children("ConfigMap"), self.finished_work(job)
        seen = assemble_training(job, config_maps, children, related, self.progress, finished=finished)
        return plan_training(job, seen, self.now, ENVIRONMENT)

    def succeed(self, stage: str) -> Plan:
        return self.end(0, success(stage))


def world(**spec: Any) -> World:
    """A job that was just made and seen."""
    cluster = World(fine_tune_job(**spec))
    cluster.reconcile()
    return cluster


def training(**spec: Any) -> World:
    """A job that trains."""
    cluster = world(**spec)
    cluster.succeed("prepare")
    return cluster


def generating(generate: dict[str, Any] = GENERATE, **spec: Any) -> World:
    """A job whose rows are being generated."""
    return world(**{"dataset": {"generate": generate}} | spec)


def preempted(step: int) -> RunReport:
    """The last word of a pod that was asked to stop and committed a checkpoint."""
    uri = f"pvc://artifacts/team/team/{UID}/checkpoints/{step}"
    checkpoint = Checkpoint(step=step, uri=uri, digest=DIGEST, time=START)
    return RunReport(stage="train", outcome=Outcome.PREEMPTED, checkpoint=checkpoint)


def created(plan: Plan) -> list[str]:
    return [action.manifest["metadata"]["name"] for action in plan.actions if isinstance(action, Create)]
