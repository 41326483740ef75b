"""Whatever happens to a search, and wherever the operator is killed, no trial is lost and none is made twice."""

from copy import deepcopy
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from long_form import cases
from simulation.search_world import SEARCH, SearchWorld, loss_of, trained
from simulation.simulated_cluster import failure

from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.search import MAX_TRIALS, TrialState
from tunesmith_contract.shared_rules.trials import changed_settings

TERMINAL = {"Succeeded", "Failed"}


class SearchMachine(RuleBasedStateMachine):
    """A job with a search, its trials, the operator, and all that may happen to them."""

    @initialize(
        parallelism=st.integers(1, 3),
        trials=st.integers(1, 5),
        hours=st.sampled_from([None, "0.5"]),
        pruned=st.booleans(),
        backoff_limit=st.integers(0, 1),
    )
    def make(
        self, parallelism: int, trials: int, hours: str | None, pruned: bool, backoff_limit: int
    ) -> None:
        budget = {"trials": trials} | ({"gpuHours": hours} if hours else {})
        search = SEARCH | {"parallelism": parallelism, "budget": budget}
        search |= {"pruner": "SuccessiveHalving"} if pruned else {}
        self.world = SearchWorld(search, backoffLimit=backoff_limit)
        self.parallelism, self.trials = parallelism, trials
        self.seen: dict[str, Any] = {}
        self.earlier: dict[tuple[str, str], Any] = {}
        self.world.prepare()

    @rule(actions=st.integers(0, 4))
    def reconcile_and_die(self, actions: int) -> None:
        self.world.reconcile_all(killed_after=actions)

    @rule()
    def reconcile(self) -> None:
        self.world.reconcile_all()

    @rule()
    def look(self) -> None:
        self.earlier = deepcopy(self.world.objects)

    @precondition(lambda self: self.earlier)
    @rule()
    def reconcile_by_an_earlier_look(self) -> None:
        """Watches lag behind, and so does the plan."""
        self.world.reconcile_outdated(self.earlier)

    @rule(seconds=st.sampled_from([10, 60, 400]))
    def pass_time(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    @precondition(lambda self: self.world.running_trials())
    @rule(data=st.data(), code=st.sampled_from([0, 0, 0, ExitCode.OUT_OF_MEMORY, ExitCode.USER_ERROR, 137]))
    def end_trial(self, data: st.DataObject, code: int) -> None:
        body = data.draw(st.sampled_from(self.world.running_trials()))
        told = {ExitCode.OUT_OF_MEMORY: "OutOfMemory", ExitCode.USER_ERROR: "UserError"}.get(code)  # type: ignore[call-overload]
        if code == 0:
            self.world.end_trial(body)
        else:
            self.world.end_trial(body, code, failure("train", told) if told else None)

    @precondition(lambda self: self.world.running_trials())
    @rule(data=st.data(), percent=st.sampled_from([10, 30, 90]))
    def measure(self, data: st.DataObject, percent: int) -> None:
        body = data.draw(st.sampled_from(self.world.running_trials()))
        progress = {"step": percent, "totalSteps": 100, "evalLoss": f"{loss_of(body):.4g}"}
        body.setdefault("status", {})["progress"] = progress

    @precondition(lambda self: self.world.trial_jobs())
    @rule(data=st.data())
    def delete_trial(self, data: st.DataObject) -> None:
        """Somebody deletes the FineTuneJob of a trial, and all that it owns goes with it."""
        body = data.draw(st.sampled_from(self.world.trial_jobs()))
        with self.world.focus(body):
            owned = [
                (kind, item["metadata"]["name"])
                for kind in ("ConfigMap", "Job", "Pod")
                for item in self.world.children(kind)
            ]
        for key in (*owned, ("FineTuneJob", body["metadata"]["name"])):
            del self.world.objects[key]

    @rule(data=st.data())
    def wipe_status(self, data: st.DataObject) -> None:
        body = data.draw(st.sampled_from([self.world.search, *self.world.trial_jobs()]))
        body.pop("status", None)

    @rule(suspend=st.booleans())
    def suspend(self, suspend: bool) -> None:
        self.world.search["spec"]["suspend"] = suspend

    @invariant()
    def records_are_never_changed_or_lost(self) -> None:
        if not hasattr(self, "world"):
            return
        now = {body["metadata"]["name"]: body["data"] for body in self.world.children("ConfigMap")}
        assert self.seen.items() <= now.items()
        self.seen = deepcopy(now)

    @invariant()
    def trials_are_bounded_and_differ(self) -> None:
        if not hasattr(self, "world"):
            return
        proposals = self.world.proposals()
        assert len(proposals) <= min(self.trials, MAX_TRIALS)
        assert sorted(item.number for item in proposals) == list(range(1, len(proposals) + 1))
        values = [tuple(item.parameters.items()) for item in proposals]
        assert len(set(values)) == len(values)

    @invariant()
    def no_more_run_than_may(self) -> None:
        if not hasattr(self, "world"):
            return
        ended = {record.trial.number for record in self.world.records()}
        unfinished = [item for item in self.world.proposals() if item.number not in ended]
        assert len(unfinished) <= self.parallelism

    @invariant()
    def a_trial_trains_with_the_values_that_were_proposed(self) -> None:
        if not hasattr(self, "world"):
            return
        proposals = {item.number: item for item in self.world.proposals()}
        for body in self.world.trial_jobs():
            number = int(body["metadata"]["name"].rpartition("-")[2])
            hyperparameters, adapter = changed_settings(proposals[number].parameters, 16)
            assert hyperparameters.items() <= body["spec"]["hyperparameters"].items()
            assert adapter.items() <= body["spec"]["adapter"].items()

    def teardown(self) -> None:
        """From wherever it is, it comes to an end with the best trial's artifact, and a wiped status comes back."""
        if not hasattr(self, "world"):
            return
        self.world.search["spec"]["suspend"] = False
        self._run_to_the_end()
        status, records = self.world.search["status"], self.world.records()
        assert {record.trial.number for record in records} == {item.number for item in self.world.proposals()}
        completed = [item.trial for item in records if item.trial.state is TrialState.COMPLETED]
        if completed:
            best = min(completed, key=lambda trial: (trial.loss, trial.number))
            assert status["phase"] == "Succeeded"
            assert status["artifact"]["uri"] == f"pvc://artifacts/expenses-trial-{best.number}"
        else:
            assert status["phase"] == "Failed"
        jobs = [body["metadata"]["name"] for body in self.world.trial_jobs()]
        self.world.forget_status()
        self.world.settle(3)
        after = self.world.search["status"]
        for member in ("phase", "search", "artifact", "cost"):
            assert after.get(member) == status.get(member)
        assert [body["metadata"]["name"] for body in self.world.trial_jobs()] == jobs

    def _run_to_the_end(self) -> None:
        for _ in range(80):
            self.world.settle(4)
            self.world.pass_time(400)
            for body in self.world.running_trials():
                with self.world.focus(body):
                    job = self.world.job()
                    if "activeDeadlineSeconds" in job["spec"]:
                        self.world.exceed_deadline(job)
                    else:
                        self.world.finish(job, 0, trained(loss_of(body), body["metadata"]["name"]))
            if not self.world.running_trials() and self.world.search["status"].get("phase") in TERMINAL:
                return
        raise AssertionError("the search does not end")


TestSearch = SearchMachine.TestCase
TestSearch.settings = settings(max_examples=cases(12, 600), stateful_step_count=20)
