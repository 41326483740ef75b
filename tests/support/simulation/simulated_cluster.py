"""A cluster in memory for the tests of the pure rooms: objects, a Job controller, a clock that only tests move."""

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from tunesmith.controller_runtime.kept import stripped
from tunesmith.decide.conditions import timestamp
from tunesmith.decide.plan import Action, Apply, Create, Delete, Patch, Plan, owned_by
from tunesmith.decide.refusal import RefusalReason, refused_condition, show_refused
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.finished_work import finished_work_owner
from tunesmith.manifests.names import API_VERSION, OWNER_UID_LABEL, Owner
from tunesmith_contract.evaluation import Metric
from tunesmith_contract.report import (
    Artifact,
    DatasetReport,
    EvaluationReport,
    Failure,
    GateEvidence,
    GenerationReport,
    Interval,
    MetricResult,
    ModelReport,
    Outcome,
    RunReport,
    TokenStatistics,
    TrainingReport,
)

Body = dict[str, Any]

START = datetime(2030, 1, 1, tzinfo=UTC)
UID = "0f3c9d52-1111-2222-3333-444455556666"
DIGEST = "sha256:" + "a" * 64
ENVIRONMENT = Environment("trainer:1", "serving:1", "https://tunesmith.operators.svc:8443", "PEM")

FINE_TUNE_JOB_SPEC: Body = {
    "baseModel": {"uri": "pvc://models/tiny"},
    "dataset": {"train": {"uri": "configmap://rows/train.jsonl"}, "validation": {"fraction": "0.1"}},
    "method": {"sft": {"maxLength": 256}},
    "adapter": {},
    "compute": {"gpusPerNode": 1},
    "output": {"uri": "pvc://artifacts/team"},
}
EVALUATION: Body = {
    "suites": [
        {"name": "task", "dataset": {"uri": "pvc://data/test.jsonl"}, "metrics": [{"type": "ExactMatch"}]}
    ],
    "gates": [{"suite": "task", "metric": "ExactMatch", "expect": "Better", "margin": "0.1"}],
    "safety": {"disabled": True, "reason": "The reports of the tests have one suite."},
}


GENERATE: Body = {
    "endpoint": {"url": "https://teacher.example/v1", "model": "large", "secretRef": {"name": "teacher"}},
    "answers": {"prompts": {"uri": "pvc://data/prompts.jsonl"}},
    "budget": {
        "calls": 2000,
        "amount": "5.00",
        "currency": "EUR",
        "inputPricePerMillion": "0.15",
        "outputPricePerMillion": "0.60",
    },
}


def fine_tune_job(**spec: Any) -> Body:
    """A FineTuneJob as the API server returns it."""
    return _resource("FineTuneJob", "expenses", FINE_TUNE_JOB_SPEC | spec)


def eval_run(**spec: Any) -> Body:
    """An EvalRun of the job above."""
    candidate = {"candidate": {"fineTuneJobRef": {"name": "expenses"}}}
    return _resource("EvalRun", "better", EVALUATION | candidate | spec)


def _resource(kind: str, name: str, spec: Body) -> Body:
    metadata = {"name": name, "namespace": "team", "uid": UID, "generation": 1, "labels": {}}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": deepcopy(spec)}


def success(stage: str) -> RunReport:
    """The report of a stage that went well."""
    match stage:
        case "generate":
            rows = Artifact(uri="pvc://artifacts/team/generated.jsonl", digest=DIGEST, size_bytes=7)
            made = Artifact(uri="pvc://artifacts/team/generation.json", digest=DIGEST, size_bytes=7)
            return RunReport(
                stage="generate",
                outcome=Outcome.SUCCEEDED,
                generation=GenerationReport(
                    rows=500,
                    made=520,
                    filtered=20,
                    calls=1040,
                    prompt_tokens=90_000,
                    completion_tokens=70_000,
                    amount="0.055500",
                    currency="EUR",
                    generated=rows,
                    manifest=made,
                ),
            )
        case "prepare":
            return RunReport(
                stage="prepare",
                outcome=Outcome.SUCCEEDED,
                dataset=DatasetReport(
                    digest=DIGEST,
                    format="Chat",
                    rows=600,
                    train_rows=540,
                    validation_rows=60,
                    tokens=TokenStatistics(p50=40, p95=80, max=100, total=24000),
                ),
                model=ModelReport(
                    revision="r1", architecture="Llama", parameters=10, max_position_embeddings=512
                ),
            )
        case "train":
            artifact = Artifact(uri=f"pvc://artifacts/team/sha256/{'a' * 64}", digest=DIGEST, size_bytes=7)
            return RunReport(
                stage="train",
                outcome=Outcome.SUCCEEDED,
                training=TrainingReport(artifact=artifact, steps=102, epochs=3, loss=0.25),
            )
        case _:
            return evaluation_report(Interval(0.4, 0.3, 0.5))


def evaluation_report(delta: Interval, threshold: float = 0.1) -> RunReport:
    """The report of an evaluation that found this difference, with evidence on one gate with this threshold."""
    result = MetricResult(
        suite="task",
        metric=Metric.EXACT_MATCH,
        items=200,
        scores=(Interval(0.9, 0.85, 0.95), Interval(0.5, 0.4, 0.6)),
        delta=delta,
        p_value=0.001,
    )
    return RunReport(
        stage="evaluate",
        outcome=Outcome.SUCCEEDED,
        evaluation=EvaluationReport(
            sides=("candidate", "baseline"),
            results=(result,),
            gates=(
                GateEvidence(
                    items=200,
                    threshold=threshold,
                    p_pass=0.001 if delta.low > threshold else 0.5,
                    p_fail=0.001 if delta.high < threshold else 0.5,
                    more_items=None if delta.low > threshold or delta.high < threshold else 120,
                ),
            ),
            policy_digest=DIGEST,
            base_model_revision="r1",
            details=Artifact(uri="pvc://artifacts/team/x", digest=DIGEST, size_bytes=3),
        ),
    )


def failure(stage: str, category: str, message: str = "told") -> RunReport:
    """The report of a stage that failed."""
    told = Failure.model_validate({"category": category, "reason": "Check", "message": message})
    return RunReport(stage=stage, outcome=Outcome.FAILED, failure=told)


class SimulatedCluster:
    """One resource, its children, and a Job controller.

    Attributes:
        resource: body of the resource under test.
        objects: all others, by kind and name.
        now: the time.
        events: reasons of the events, in their order.
        refuses: the API server's words by the kind of which it lets nothing be created.
    """

    def __init__(self, resource: Body) -> None:
        self.now = START
        self.resource = resource
        self.resource["metadata"]["creationTimestamp"] = timestamp(START)
        self.objects: dict[tuple[str, str], Body] = {}
        self.events: list[str] = []
        self.refuses: dict[str, str] = {}
        self._uids = 0

    def plan(self) -> Plan:
        """What the operator would do next."""
        raise NotImplementedError

    def reconcile(self) -> Plan:
        """Once, and the Job controller after it."""
        plan = self.plan()
        self.carry_out(plan)
        self.run_job_controller()
        return plan

    def end(self, exit_code: int, report: RunReport | str | None = None) -> Plan:
        """Let the current pod end and reconcile."""
        self.finish(self.job(), exit_code, report)
        return self.reconcile()

    def job(self) -> Body:
        """The only Job that runs."""
        (live,) = self.live_jobs()
        return live

    @property
    def status(self) -> Body:
        """What the operator wrote."""
        status: Body = self.resource["status"]
        return status

    def condition(self, kind: str) -> Body:
        """The condition of a type."""
        return next(item for item in self.status["conditions"] if item["type"] == kind)

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.now += timedelta(seconds=seconds)

    def children(self, kind: str) -> list[Body]:
        """The resource's children of a kind, pods of its Jobs included."""
        uid = self.resource["metadata"]["uid"]
        found = (body for (of, _), body in self.objects.items() if of == kind)
        return [body for body in found if kind == "Pod" or owned_by(body, uid)]

    def kept(self, kind: str) -> tuple[Body, ...]:
        """The Jobs or pods among them as the operator keeps them: without what nobody reads."""
        api_version = "batch/v1" if kind == "Job" else "v1"
        return tuple(dict(stripped(api_version, kind, body)) for body in self.children(kind))

    def finished_work(self, owner: Owner) -> tuple[Body, ...]:
        """The ConfigMap with finished work of resources of this name."""
        label = finished_work_owner(owner)
        labels = ((body, body["metadata"].get("labels", {})) for body in self.objects.values())
        return tuple(body for body, found in labels if found.get(OWNER_UID_LABEL) == label)

    def live_jobs(self) -> list[Body]:
        """Jobs that have not ended."""
        return [job for job in self.children("Job") if not job["status"].get("conditions")]

    def carry_out(self, plan: Plan, killed_after: int | None = None) -> None:
        """Execute a plan as the operator does; killed after so many actions nothing more happens."""
        refused: dict[str, str] = {}
        for action in plan.actions[:killed_after]:
            if isinstance(action, Create) and action.condition:
                words = refused.get(action.condition) or self.refuses.get(action.manifest["kind"])
                if words is not None:
                    refused[action.condition] = words
                    continue
            self._act(action)
        if killed_after is not None and killed_after <= len(plan.actions):
            return
        if plan.status is not None:
            conditions = [
                refused_condition(kind, RefusalReason.REFUSED, words) for kind, words in refused.items()
            ]
            status = (
                show_refused(self.resource, plan.status, conditions, self.now) if refused else plan.status
            )
            self.resource["status"] = deepcopy(status)
        self.events += [event.reason for event in plan.events if event.condition not in refused]

    def run_job_controller(self) -> None:
        """Start pods of Jobs that may have them, end those of Jobs that may not."""
        for job in self.live_jobs():
            names = [self.pod_name(job, index) for index in range(job["spec"]["completions"])]
            if job["spec"].get("suspend"):
                for name in names:
                    self.objects.pop(("Pod", name), None)
                job["status"].pop("startTime", None)
                continue
            job["status"].setdefault("startTime", timestamp(self.now))
            for index, name in enumerate(names):
                if ("Pod", name) not in self.objects:
                    self._add(self._pod(job, index))

    def finish(self, job: Body, exit_code: int, report: RunReport | str | None = None) -> None:
        """Let the first pod of a Job end, and the Job with it."""
        self.finish_pod(job, exit_code, report)
        self.end_job(job, exit_code)

    def finish_pod(
        self, job: Body, exit_code: int, report: RunReport | str | None = None, index: int = 0
    ) -> None:
        """Let a pod of a Job end; the Job does not know it yet."""
        message = report.to_termination_message().decode() if isinstance(report, RunReport) else report
        pod = self.pod_of(job, index)
        end = {
            "exitCode": exit_code,
            "reason": "Completed" if exit_code == 0 else "Error",
            "startedAt": pod["metadata"]["creationTimestamp"],
            "finishedAt": timestamp(self.now),
        } | ({"message": message} if message else {})
        pod["status"] = {
            "phase": "Failed" if exit_code else "Succeeded",
            "startTime": pod["metadata"]["creationTimestamp"],
            "containerStatuses": [_state("terminated", end)],
        }

    def end_job(self, job: Body, exit_code: int) -> None:
        """The Job controller sees that all is over."""
        kind = "Failed" if exit_code else "Complete"
        self._end_job(job, kind, f"Container trainer failed with exit code {exit_code}")

    def exceed_deadline(self, job: Body) -> None:
        """The Job controller ends a Job whose deadline is over, once its pods have ended."""
        assert "activeDeadlineSeconds" in job["spec"]
        self._end_job(job, "Failed", "Job was active longer than specified deadline", "DeadlineExceeded")

    def delete_pod(self, job: Body, index: int = 0, grace_seconds: int = 30) -> None:
        """Ask for the deletion of a pod, which runs on until it ends or its grace period is over."""
        self.pod_of(job, index)["metadata"] |= {
            "deletionTimestamp": timestamp(self.now + timedelta(seconds=grace_seconds)),
            "deletionGracePeriodSeconds": grace_seconds,
        }

    def lose_pod(self, job: Body) -> None:
        """The pod's node is removed, and the pod with it."""
        self.objects.pop(("Pod", job["metadata"]["name"]), None)
        self._end_job(job, "Failed", "Job has reached the specified backoff limit")

    @staticmethod
    def pod_name(job: Body, index: int) -> str:
        """The first pod has the Job's own name here."""
        return str(job["metadata"]["name"]) + (f"-{index}" if index else "")

    def pod_of(self, job: Body, index: int = 0) -> Body:
        """A pod of a Job."""
        return self.objects[("Pod", self.pod_name(job, index))]

    def forget_status(self) -> None:
        """Somebody wipes the status."""
        self.resource.pop("status", None)

    def _end_job(self, job: Body, kind: str, message: str, reason: str = "PodFailurePolicy") -> None:
        condition = {"type": kind, "status": "True", "message": message, "reason": reason}
        job["status"]["conditions"] = [condition | {"lastTransitionTime": timestamp(self.now)}]

    def _act(self, action: Action) -> None:
        match action:
            case Create(manifest):
                if (manifest["kind"], manifest["metadata"]["name"]) not in self.objects:
                    self._add(deepcopy(manifest))
            case Patch(kind=kind, name=name, patch=patch):
                if (kind, name) in self.objects:
                    _merge(self.objects[(kind, name)], patch)
            case Delete(kind=kind, name=name, uid=uid):
                if self.objects.get((kind, name), {}).get("metadata", {}).get("uid") == uid:
                    gone = self.objects.pop((kind, name))
                    for index in range(gone["spec"].get("completions", 0)):
                        self.objects.pop(("Pod", self.pod_name(gone, index)), None)
            case Apply() | _:
                raise AssertionError(f"not for a run: {action}")

    def _add(self, body: Body) -> None:
        self._uids += 1
        body["metadata"] |= {"uid": f"uid-{self._uids}", "creationTimestamp": timestamp(self.now)}
        if body["kind"] == "Job":
            body.setdefault("status", {})
        self.objects[(body["kind"], body["metadata"]["name"])] = body

    def _pod(self, job: Body, index: int) -> Body:
        template = deepcopy(job["spec"]["template"])
        metadata = {
            "name": self.pod_name(job, index),
            "namespace": "team",
            "labels": template["metadata"]["labels"]
            | {"batch.kubernetes.io/job-completion-index": str(index)},
        }
        running = _state("running", {"startedAt": timestamp(self.now)})
        status = {
            "phase": "Running",
            "startTime": timestamp(self.now),
            "containerStatuses": [running],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": template["spec"],
            "status": status,
        }


def _merge(body: Body, patch: Mapping[str, Any]) -> None:
    """JSON merge patch."""
    for key, value in patch.items():
        if value is None:
            body.pop(key, None)
        elif isinstance(value, dict):
            _merge(body.setdefault(key, {}), value)
        else:
            body[key] = value


def _state(kind: str, value: Body) -> Body:
    return {"name": "trainer", "state": {kind: value}}
