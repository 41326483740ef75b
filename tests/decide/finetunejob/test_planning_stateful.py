"""Whatever happens to a FineTuneJob, and wherever the operator is killed, its history stays sound."""

from collections import Counter
from copy import deepcopy
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from long_form import cases
from simulation.simulated_cluster import (
    ENVIRONMENT,
    EVALUATION,
    GENERATE,
    SimulatedCluster,
    fine_tune_job,
    success,
)

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.finetunejob.observed import RelatedObjects, assemble_training
from tunesmith.decide.finetunejob.planning import plan_training
from tunesmith.decide.plan import Plan
from tunesmith.decide.run.attempts import MAX_DISRUPTIONS
from tunesmith.decide.run.children import Children
from tunesmith.manifests.names import ATTEMPT_LABEL, STAGE_LABEL
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord, parse_result
from tunesmith_contract.exit_codes import ExitCode

EXIT_CODES = st.sampled_from([*ExitCode, 1, 137, 143])
TERMINAL = {"Succeeded", "Failed"}


def stage_of(body: dict[str, Any]) -> str:
    """Which stage a Job belongs to."""
    stage: str = body["metadata"]["labels"][STAGE_LABEL]
    return stage


class FineTuneJobMachine(RuleBasedStateMachine):
    """A job, its cluster, the operator, and all that may happen to them."""

    @initialize(
        backoff_limit=st.integers(0, 3),
        ttl=st.sampled_from([None, 0, 100]),
        deadline=st.sampled_from([None, 300, 5000]),
        evaluated=st.booleans(),
        generates=st.booleans(),
    )
    def make(
        self, backoff_limit: int, ttl: int | None, deadline: int | None, evaluated: bool, generates: bool
    ) -> None:
        optional: dict[str, Any] = {"ttlSecondsAfterFinished": ttl, "activeDeadlineSeconds": deadline}
        optional |= {"evaluation": EVALUATION if evaluated else None}
        optional |= {"dataset": {"generate": GENERATE} if generates else None}
        given = {name: value for name, value in optional.items() if value is not None}
        method = {"sft": {"maxLength": 256, "packing": False}}
        self.cluster = SimulatedCluster(fine_tune_job(backoffLimit=backoff_limit, method=method, **given))
        self.backoff_limit = backoff_limit
        self.generates = generates
        self.records: dict[str, Any] = {}
        self.decided: str | None = None
        self.started: Counter[str] = Counter()
        self.done: dict[str, int] = {}
        self.lost: set[str] = set()
        self.reconcile()

    def plan(self) -> Plan:
        cluster, job = self.cluster, FineTuneJob.parse(self.cluster.resource)
        children = Children(jobs=tuple(cluster.children("Job")), pods=tuple(cluster.children("Pod")))
        related = RelatedObjects(eval_run=cluster.objects.get(("EvalRun", "expenses")))
        finished = cluster.finished_work(job)
        seen = assemble_training(job, cluster.children("ConfigMap"), children, related, finished=finished)
        return plan_training(job, seen, cluster.now, ENVIRONMENT)

    @rule()
    def reconcile(self) -> None:
        self._carry_out(self.plan(), None)
        self.cluster.run_job_controller()

    @rule(actions=st.integers(0, 3))
    def reconcile_and_die(self, actions: int) -> None:
        self._carry_out(self.plan(), actions)

    @rule()
    def go_on(self) -> None:
        """What ended is noticed, and the next attempt begins."""
        self.reconcile()
        self.cluster.pass_time(400)
        self.reconcile()

    def _carry_out(self, plan: Plan, killed_after: int | None) -> None:
        before = {job["metadata"]["name"] for job in self.cluster.children("Job")}
        self.cluster.carry_out(plan, killed_after)
        for job in self.cluster.children("Job"):
            if job["metadata"]["name"] not in before:
                self.started[stage_of(job)] += 1

    @rule(seconds=st.sampled_from([1, 10, 60, 400, 3000]))
    def pass_time(self, seconds: int) -> None:
        self.cluster.pass_time(seconds)

    @precondition(lambda self: self._running())
    @rule(code=EXIT_CODES, told=st.booleans())
    def end_pod(self, code: int, told: bool) -> None:
        job = self._running()[0]
        self.cluster.finish(job, code, success(stage_of(job)) if told and code == 0 else None)

    @precondition(lambda self: self._running())
    @rule()
    def end_pod_well(self) -> None:
        job = self._running()[0]
        self.cluster.finish(job, 0, success(stage_of(job)))
        self.go_on()

    @precondition(lambda self: self._running())
    @rule()
    def lose_pod(self) -> None:
        self.cluster.lose_pod(self._running()[0])
        self.go_on()

    @precondition(lambda self: self._running())
    @rule(code=st.sampled_from([1, 137, 143, *ExitCode]), seconds=st.integers(0, 40))
    def delete_pod(self, code: int, seconds: int) -> None:
        """Somebody deletes the pod, and it ends as it can: no failure of its own."""
        job = self._running()[0]
        self.cluster.delete_pod(job)
        self.cluster.pass_time(seconds)
        self.cluster.finish(job, code, success(stage_of(job)) if code == 0 else None)
        self.reconcile()
        stopped = "activeDeadlineSeconds" in job["spec"]
        labels = job["metadata"]["labels"]
        for record in self._recorded():
            if (record.stage, str(record.attempt)) == (labels[STAGE_LABEL], labels[ATTEMPT_LABEL]):
                assert record.outcome is not AttemptOutcome.FAILED or stopped
        self.go_on()

    @precondition(lambda self: self._running())
    @rule(code=st.sampled_from([1, ExitCode.COMMUNICATION, ExitCode.PREEMPTED]))
    def end_pod_for_now(self, code: int) -> None:
        self.cluster.finish(self._running()[0], code)
        self.go_on()

    @precondition(lambda self: self._running())
    @rule(actions=st.integers(0, 3))
    def silence_node(self, actions: int) -> None:
        """The pod is never seen to end; the operator is killed while it gives the pod up."""
        pod = self.cluster.pod_of(self._running()[0])
        pod["metadata"]["deletionTimestamp"] = self.cluster.now.isoformat()
        self.cluster.pass_time(400)
        self.reconcile_and_die(actions)
        self.go_on()

    @precondition(lambda self: self._running())
    @rule(reason=st.sampled_from(["ImagePullBackOff", "CreateContainerConfigError"]))
    def hold_up_pod(self, reason: str) -> None:
        status = self.cluster.pod_of(self._running()[0])["status"]
        status["containerStatuses"] = [{"name": "trainer", "state": {"waiting": {"reason": reason}}}]

    @precondition(lambda self: self.cluster.children("Job"))
    @rule(data=st.data())
    def delete_job(self, data: st.DataObject) -> None:
        names = sorted(job["metadata"]["name"] for job in self.cluster.children("Job"))
        name = data.draw(st.sampled_from(names))
        del self.cluster.objects[("Job", name)]
        self.cluster.objects.pop(("Pod", name), None)

    @rule(kinds=st.sets(st.sampled_from(["Job", "EvalRun"])))
    def refuse(self, kinds: set[str]) -> None:
        """A quota or a policy refuses what is to be created from now on."""
        self.cluster.refuses = dict.fromkeys(kinds, "exceeded quota")

    @rule(component=st.sampled_from(["inputs", "run"]))
    def delete_snapshot(self, component: str) -> None:
        """Somebody deletes a snapshot: the operator makes it again, as it was."""
        name = f"expenses-0f3c9d-{component}"
        if self.cluster.objects.pop(("ConfigMap", name), None) is not None:
            self.lost.add(name)

    @rule()
    def wipe_status(self) -> None:
        self.cluster.forget_status()

    @rule(suspend=st.booleans())
    def suspend(self, suspend: bool) -> None:
        self.cluster.resource["spec"]["suspend"] = suspend

    def _let_end(self, job: dict[str, Any]) -> None:
        if "activeDeadlineSeconds" in job["spec"]:
            self.cluster.exceed_deadline(job)
        else:
            self.cluster.finish(job, 0, success(stage_of(job)))

    @precondition(lambda self: any("activeDeadlineSeconds" in job["spec"] for job in self._running()))
    @rule()
    def stop_at_the_deadline(self) -> None:
        """The pods end as they were asked to."""
        self.cluster.exceed_deadline(self._running()[0])
        self.go_on()

    def _running(self) -> list[dict[str, Any]]:
        pods = {name for kind, name in self.cluster.objects if kind == "Pod"}
        return [job for job in self.cluster.live_jobs() if job["metadata"]["name"] in pods]

    def _recorded(self) -> list[AttemptRecord]:
        return [record for body in self.cluster.children("ConfigMap") if (record := parse_result(body))]

    @invariant()
    def one_job_of_a_stage_is_live(self) -> None:
        live = Counter(stage_of(job) for job in self.cluster.live_jobs())
        assert all(count == 1 for count in live.values()), live

    @invariant()
    def config_maps_are_never_changed_or_lost(self) -> None:
        now = {body["metadata"]["name"]: body["data"] for body in self.cluster.children("ConfigMap")}
        gone = self.lost - now.keys()
        before = {name: data for name, data in self.records.items() if name not in gone}
        # When the job began stood in its inputs and in its status: both may be lost.
        again = {
            name: now[name]
            | ({"startTime": data["startTime"]} if name in self.lost and "startTime" in data else {})
            for name, data in before.items()
        }
        assert before == again
        self.records |= deepcopy(now)

    @invariant()
    def a_finished_stage_never_runs_again(self) -> None:
        for record in self._recorded():
            if record.outcome is AttemptOutcome.SUCCEEDED or record.final:
                assert (
                    self.done.setdefault(record.stage, self.started[record.stage])
                    == self.started[record.stage]
                )

    @invariant()
    def nothing_trains_before_the_data_is_prepared(self) -> None:
        if any(stage_of(job) == "train" for job in self.cluster.children("Job")):
            assert any(record.stage == "prepare" and record.report for record in self._recorded())

    @invariant()
    def nothing_is_prepared_before_its_rows_are_generated(self) -> None:
        if any(stage_of(job) == "prepare" for job in self.cluster.children("Job")):
            made = any(record.stage == "generate" and record.report for record in self._recorded())
            assert made is self.generates

    @invariant()
    def attempts_are_bounded(self) -> None:
        ended = Counter(record.outcome for record in self._recorded())
        remedied = sum(record.remedy is not None for record in self._recorded())
        assert remedied <= 1
        assert ended[AttemptOutcome.FAILED] - remedied <= self.backoff_limit + 1
        assert ended[AttemptOutcome.DISRUPTED] <= MAX_DISRUPTIONS

    @invariant()
    def an_end_is_an_end(self) -> None:
        phase = self.cluster.resource.get("status", {}).get("phase")
        if self.decided is not None and phase is not None:
            assert phase == self.decided
        if phase in TERMINAL:
            self.decided = phase

    def teardown(self) -> None:
        """From wherever it is, it comes to an end, and a wiped status comes back."""
        if not hasattr(self, "cluster"):
            return
        self.cluster.resource["spec"]["suspend"] = False
        self.cluster.refuses = {}
        for _ in range(40):
            self.reconcile()
            for job in self._running():
                self._let_end(job)
            self.cluster.pass_time(400)
        status = self.cluster.resource["status"]
        assert status["phase"] in TERMINAL
        assert not self.cluster.live_jobs()
        self.cluster.forget_status()
        self.reconcile()
        again = self.cluster.resource["status"]
        if self.lost:
            # When the job began stood in its inputs and in its status.
            again["startTime"] = status["startTime"]
        assert _lasting(again) == _lasting(status)


def _lasting(status: dict[str, Any]) -> dict[str, Any]:
    """A status without the times at which conditions changed, and what only a live pod knew."""
    conditions = [
        {key: value for key, value in condition.items() if key != "lastTransitionTime"}
        for condition in status["conditions"]
    ]
    return {key: value for key, value in status.items() if key != "progress"} | {"conditions": conditions}


TestFineTuneJob = FineTuneJobMachine.TestCase
TestFineTuneJob.settings = settings(max_examples=cases(30, 1000), stateful_step_count=30)
