"""An EvalRun in the simulated cluster, its candidate's FineTuneJob, and the operator's reconcile of it."""

from typing import Any

from simulation.simulated_cluster import (
    DIGEST,
    ENVIRONMENT,
    SimulatedCluster,
    eval_run,
    fine_tune_job,
)

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.evalrun.planning import assemble_evaluation, plan_evaluation
from tunesmith.decide.evalrun.sides import ServedAliases, SideSources
from tunesmith.decide.finetunejob.observed import LiveProgress
from tunesmith.decide.plan import Plan
from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith.manifests.objects import Body
from tunesmith.manifests.verdict_records import VERDICTS_OWNER
from tunesmith_contract.run_config import EvaluateConfig, parse_run_config

ARTIFACT = {"uri": f"pvc://artifacts/team/sha256/{'a' * 64}", "digest": DIGEST, "sizeBytes": 7}


class World(SimulatedCluster):
    """A cluster with an EvalRun, its candidate's job, and the operator's reconcile."""

    def __init__(self, job: dict[str, Any] | None = None, **spec: Any) -> None:
        super().__init__(eval_run(**spec))
        self.candidate = job
        self.others: list[dict[str, Any]] = []
        self.deployments: dict[str, ServedAliases | None] = {}
        self.candidate_config_maps: list[Body] = []
        self.nodes: tuple[Body, ...] = ()
        self.progress: LiveProgress | None = None
        self.other_runs: tuple[Body, ...] = ()
        self.claims: dict[str, tuple[str, ...]] = {}
        self.environment = ENVIRONMENT

    def plan(self) -> Plan:
        run = EvalRun.parse(self.resource)
        bodies = [*([self.candidate] if self.candidate else []), *self.others]
        made = [FineTuneJob.parse(body) for body in bodies]
        artifacts = {job.status.artifact.digest: job for job in made if job.status.artifact}
        exports = {
            export.digest: job
            for job in made
            for export in (job.status.artifact.exports if job.status.artifact else ())
        }
        sources = SideSources({job.metadata.name: job for job in made}, self.deployments, artifacts | exports)
        seen = assemble_evaluation(
            run,
            self.children("ConfigMap"),
            self.kept("Job"),
            self.kept("Pod"),
            sources,
            source_config_maps={"expenses": self.candidate_config_maps},
            gpu_nodes=self.nodes,
            progress=self.progress,
            other_runs=self.other_runs,
            claims=self.claims,
            verdicts=self.verdicts,
            finished=self.finished_work(run),
        )
        return plan_evaluation(run, seen, self.now, self.environment)

    @property
    def verdicts(self) -> tuple[Body, ...]:
        """The ConfigMaps that keep verdicts."""
        labels = ((body, body["metadata"].get("labels", {})) for body in self.objects.values())
        return tuple(body for body, found in labels if found.get(OWNER_UID_LABEL) == VERDICTS_OWNER)

    def config(self) -> EvaluateConfig:
        text = self.objects[("ConfigMap", "better-0f3c9d-inputs")]["data"]["run.json"]
        config = parse_run_config(text)
        assert isinstance(config, EvaluateConfig)
        return config


def tuned(**spec: Any) -> dict[str, Any]:
    """A FineTuneJob that has succeeded."""
    body = fine_tune_job(**spec)
    body["status"] = {"phase": "Succeeded", "artifact": ARTIFACT, "resolved": {"baseModelRevision": "r1"}}
    return body
