"""A FineTuneJob with a search, the FineTuneJobs of its trials, and the operator's reconcile of them all."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from simulation.simulated_cluster import DIGEST, ENVIRONMENT, SimulatedCluster, fine_tune_job, success

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.finetunejob.observed import LiveProgress, RelatedObjects, assemble_training
from tunesmith.decide.finetunejob.planning import TERMINAL, plan_training
from tunesmith.decide.finetunejob.trial import TrialSource
from tunesmith.decide.plan import Plan, owned_by
from tunesmith.decide.run.children import Children
from tunesmith.decide.search.observed import EndedTrialJob
from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith.manifests.result_config_map import parse_result
from tunesmith.manifests.run_snapshots import inputs_name, parse_run, run_name
from tunesmith.manifests.trial_job import search_of
from tunesmith.manifests.trial_records import (
    TrialProposal,
    TrialRecord,
    parse_proposal,
    parse_trial_record,
)
from tunesmith_contract.report import RunReport

Body = dict[str, Any]

SEARCH: Body = {
    "parameters": [
        {"name": "learningRate", "min": "1e-5", "max": "1e-2", "scale": "Log"},
        {"name": "rank", "values": ["8", "16", "32"]},
    ],
    "parallelism": 2,
    "budget": {"trials": 4},
}


def loss_of(body: Body) -> float:
    """Validation loss of a trial: the closer its rate to 3e-4, the lower."""
    return abs(math.log10(float(body["spec"]["hyperparameters"]["learningRate"])) - math.log10(3e-4))


def trained(loss: float, word: str) -> RunReport:
    """The report of a training that ended with this validation loss."""
    report = success("train")
    assert report.training is not None
    artifact = report.training.artifact.model_copy(
        update={"uri": f"pvc://artifacts/{word}", "digest": DIGEST}
    )
    training = report.training.model_copy(update={"eval_loss": loss, "artifact": artifact})
    return report.model_copy(update={"training": training})


class SearchWorld(SimulatedCluster):
    """A cluster with a FineTuneJob and its trials; ``resource`` is the one that is reconciled now."""

    progress: LiveProgress | None = None
    #: False while the watch of the trials' ConfigMaps is behind.
    records_seen = True

    def __init__(self, search: Mapping[str, Any] = SEARCH, **spec: Any) -> None:
        super().__init__(fine_tune_job(search=dict(search), **spec))
        self.search = self.resource

    @contextmanager
    def focus(self, body: Body) -> Iterator[None]:
        """See the world as the reconcile of one FineTuneJob does."""
        before, self.resource = self.resource, body
        try:
            yield
        finally:
            self.resource = before

    def children(self, kind: str) -> list[Body]:
        """The children of the resource in focus."""
        uid = self.resource["metadata"]["uid"]
        found = [body for (of, _), body in self.objects.items() if of == kind]
        if kind == "Pod":
            return [body for body in found if body["metadata"]["labels"].get(OWNER_UID_LABEL) == uid]
        return [body for body in found if owned_by(body, uid)]

    def trial_jobs(self) -> list[Body]:
        """FineTuneJobs of the trials, in the order of their numbers."""
        found = [body for (kind, _), body in self.objects.items() if kind == "FineTuneJob"]
        return sorted(found, key=lambda body: int(body["metadata"]["name"].rpartition("-")[2]))

    def plan(self) -> Plan:
        """What the operator would do next with the job in focus."""
        job = FineTuneJob.parse(self.resource)
        jobs, pods = self.kept("Job"), self.kept("Pod")
        eval_run = self.objects.get(("EvalRun", job.metadata.name))
        related = RelatedObjects(eval_run=eval_run, trial_source=self._trial_source(job))
        trials = self._trials(job)
        seen = assemble_training(
            job,
            self.children("ConfigMap"),
            Children((), jobs, pods),
            related,
            self.progress if self.resource is self.search else None,
            trial_jobs=trials,
            ended_trials=self._ended(trials),
        )
        return plan_training(job, seen, self.now, ENVIRONMENT)

    def reconcile_all(self, killed_after: int | None = None) -> None:
        """The job with the search, then each of its trials, then the Job controller; the first may be killed."""
        self.carry_out(self.plan(), killed_after)
        self._adopt_new_jobs()
        own = [body for body in self.trial_jobs() if owned_by(body, self.search["metadata"]["uid"])]
        for body in own:
            with self.focus(body):
                self.carry_out(self.plan())
        for body in (self.search, *own):
            with self.focus(body):
                self.run_job_controller()

    def reconcile_outdated(self, seen: dict[tuple[str, str], Body]) -> None:
        """The job with the search, by what watches had delivered earlier.

        Args:
            seen: the objects of that time.
        """
        now, self.objects = self.objects, seen
        try:
            plan = self.plan()
        finally:
            self.objects = now
        self.carry_out(plan)
        self._adopt_new_jobs()

    def settle(self, passes: int = 8) -> None:
        """Reconcile until what was begun has taken effect."""
        for _ in range(passes):
            self.reconcile_all()

    def prepare(self) -> None:
        """Let the preparation succeed."""
        self.reconcile_all()
        (prepare,) = self.live_jobs()
        self.finish(prepare, 0, success("prepare"))
        self.settle()

    def running_trials(self) -> list[Body]:
        """FineTuneJobs of trials with a pod that runs."""
        return [body for body in self.trial_jobs() if self._pods(body)]

    def end_trial(self, body: Body, exit_code: int = 0, report: RunReport | str | None = None) -> None:
        """Let the training of a trial end; without a report, well."""
        with self.focus(body):
            word = body["metadata"]["name"]
            self.finish(self.job(), exit_code, report or trained(loss_of(body), word))

    def run_to_the_end(self, loss: Callable[[Body], float] = loss_of) -> None:
        """Let one trial after the other end well."""
        for _ in range(200):
            self.settle(4)
            running = self.running_trials()
            if not running and self.search["status"]["phase"] in TERMINAL:
                return
            for body in running:
                self.pass_time(60)
                self.end_trial(body, report=trained(loss(body), body["metadata"]["name"]))
        raise AssertionError("the search does not end")

    def proposals(self) -> list[TrialProposal]:
        """The recorded proposals."""
        found = [parse_proposal(body) for body in self.children("ConfigMap")]
        return [proposal for proposal in found if proposal]

    def records(self) -> list[TrialRecord]:
        """The recorded ends of trials."""
        found = [parse_trial_record(body) for body in self.children("ConfigMap")]
        return [record for record in found if record]

    def _pods(self, body: Body) -> list[Body]:
        with self.focus(body):
            return [
                pod
                for pod in self.children("Pod")
                if pod["status"]["phase"] == "Running" and self.live_jobs()
            ]

    def _adopt_new_jobs(self) -> None:
        """What the API server adds to a new FineTuneJob."""
        for body in self.trial_jobs():
            body["metadata"].setdefault("generation", 1)
            body["metadata"].setdefault("annotations", {})

    def _trials(self, job: FineTuneJob) -> dict[int, Body]:
        if job.spec.search is None:
            return {}
        prefix = f"{job.metadata.name}-trial-"
        return {int(body["metadata"]["name"].removeprefix(prefix)): body for body in self.trial_jobs()}

    def _ended(self, trials: Mapping[int, Body]) -> dict[int, EndedTrialJob]:
        ended = {}
        for number, body in trials.items():
            child = FineTuneJob.parse(body)
            if child.status.phase not in TERMINAL or not self.records_seen:
                continue
            with self.focus(body):
                maps = self.children("ConfigMap")
            records = tuple(record for item in maps if (record := parse_result(item)))
            runs = [parse_run(item) for item in maps if item["metadata"]["name"] == run_name(child)]
            ended[number] = EndedTrialJob(records, runs[0] if runs else None)
        return ended

    def _trial_source(self, job: FineTuneJob) -> TrialSource | None:
        if search_of(job) is None:
            return None
        parent = FineTuneJob.parse(self.search)
        with self.focus(self.search):
            maps = self.children("ConfigMap")
        inputs = [item for item in maps if item["metadata"]["name"] == inputs_name(parent)]
        records = tuple(record for item in maps if (record := parse_result(item)))
        return TrialSource(inputs[0] if inputs else None, records)
