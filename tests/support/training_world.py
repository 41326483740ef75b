"""A FineTuneJob in the simulated cluster, and the operator's reconcile of it."""

from typing import Any

from simulated_cluster import DIGEST, ENVIRONMENT, START, UID, SimulatedCluster, fine_tune_job, success

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.plan import Create, Plan
from tunesmith.decide.training import LiveProgress, assemble_training, plan_training
from tunesmith_contract.report import Checkpoint, Outcome, RunReport


class World(SimulatedCluster):
    """A cluster with a FineTuneJob, and the operator's reconcile."""

    progress: LiveProgress | None = None
    missing: tuple[str, ...] = ()
    workloads: tuple[dict[str, Any], ...] | None = None

    def plan(self) -> Plan:
        job = FineTuneJob.parse(self.resource)
        seen = assemble_training(
            job,
            self.children("ConfigMap"),
            self.children("Job"),
            self.children("Pod"),
            self.objects.get(("EvalRun", job.metadata.name)),
            self.progress,
            self.missing,
            services=tuple(self.children("Service")),
            workloads=self.workloads,
        )
        return plan_training(job, seen, self.now, ENVIRONMENT)

    def reconcile(self) -> Plan:
        """Once, and the Job controller after it."""
        plan = self.plan()
        self.carry_out(plan)
        self.run_job_controller()
        return plan

    @property
    def status(self) -> dict[str, Any]:
        return self.resource["status"]

    def condition(self, kind: str) -> dict[str, Any]:
        return next(item for item in self.status["conditions"] if item["type"] == kind)

    def job(self) -> dict[str, Any]:
        (live,) = self.live_jobs()
        return live

    def end(self, exit_code: int, report: Any = None) -> Plan:
        """Let the current pod end and reconcile."""
        self.finish(self.job(), exit_code, report)
        return self.reconcile()

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


def preempted(step: int) -> RunReport:
    """The last word of a pod that was asked to stop and committed a checkpoint."""
    uri = f"pvc://artifacts/team/team/{UID}/checkpoints/{step}"
    checkpoint = Checkpoint(step=step, uri=uri, digest=DIGEST, time=START)
    return RunReport(stage="train", outcome=Outcome.PREEMPTED, checkpoint=checkpoint)


def created(plan: Plan) -> list[str]:
    return [action.manifest["metadata"]["name"] for action in plan.actions if isinstance(action, Create)]
