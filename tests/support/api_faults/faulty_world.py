"""Resources of all three kinds, an operator that is killed again and again, and a proxy that hurts its requests."""

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from api_faults.fault_proxy import FaultProxy, Moment
from api_faults.faults import FaultPlan
from api_faults.rollouts import WEIGHTS, Rollouts
from api_faults.run_pods import RunPods, attempts_of, fails_for_good
from api_faults.written_history import ENDED, WrittenHistory
from control_plane.cluster_runs import Body, Runs, lasting
from control_plane.forked_operator import ForkedOperator
from control_plane.operator_life import Life
from control_plane.restartable_operator import odd_ends
from simulation.simulated_cluster import DIGEST, EVALUATION, eval_run, fine_tune_job

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

JOB, RUN = "FineTuneJob", "EvalRun"
STAGES = {JOB: ("prepare", "train"), RUN: ("evaluate",)}
#: Longest life of an operator that is to be killed at a write, if none comes.
LIFE_SECONDS = 5.0
#: Longest time until a standby leads and has written something.
LEASE_SECONDS = 30.0
#: Within this time after the last fault everything must have ended; the longest back-off of the queue is not reached.
END_SECONDS = 90.0
#: Writes after which an operator is killed, at most.
MOST_WRITES = 8


@dataclass
class FaultyWorld:
    """The parts, while they run.

    Attributes:
        made: each run that was made, by kind and name.
        kills: how often the operator was killed, by the moment.
        exits: how often it ended by itself.
    """

    runs: Runs
    operator: ForkedOperator
    proxy: FaultProxy
    plan: FaultPlan
    history: WrittenHistory
    pods: RunPods
    rollouts: Rollouts
    seed: int
    made: dict[tuple[str, str], Body] = field(default_factory=dict)
    kills: dict[Moment, int] = field(default_factory=lambda: dict.fromkeys(Moment, 0))
    exits: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def make_runs(self, count: int) -> None:
        """Make so many jobs, every third with an evaluation, and a third as many evaluations of their own."""
        for _ in range(count):
            number = len(self.made)
            evaluation = {"evaluation": EVALUATION | {"compute": {"gpus": 0}}} if number % 3 == 0 else {}
            name = f"job-{number}"
            self.made[JOB, name] = self.runs.create(
                fine_tune_job(compute={"gpusPerNode": 0}, **evaluation), name
            )
            if evaluation and not fails_for_good(self.seed, name):
                self.made[RUN, name] = {}
            if number % 3 == 1:
                candidate = {"candidate": {"uri": "pvc://artifacts/mine", "digest": DIGEST}}
                spec = candidate | {"compute": {"gpus": 0}, "baseModel": {"uri": "pvc://models/tiny"}}
                self.made[RUN, f"run-{number}"] = self.runs.create(eval_run(**spec), f"run-{number}")

    def unfinished(self) -> dict[tuple[str, str], Body]:
        """The status of each run that has not ended."""
        return {
            (kind, body["metadata"]["name"]): body.get("status", {})
            for kind in STAGES
            for body in self.runs.resources(kind)
            if body.get("status", {}).get("phase") not in ENDED
        } | {key: {} for key in self.made if not self.runs.exists(*key)}

    def live_and_die(self, kills: int, at_work: int) -> None:
        """Kill the operator so many times at random writes, with about so many runs that have not ended."""
        for _ in range(kills):
            if len(self.unfinished()) < at_work:
                self.make_runs(2)
            self.one_life()

    def one_life(self) -> None:
        """Start the operator, kill it at a random write, and free its lease, as if 15 seconds had passed."""
        struck = threading.Event()
        moment = self._random.choice(list(Moment))
        assert self.operator.life is None or not self.operator.is_running
        self.operator.start()
        life = self.operator.life
        assert life is not None
        self.proxy.kill_at(self._random.randint(1, MOST_WRITES), moment, partial(_strike, life, struck))
        ends = time.monotonic() + LIFE_SECONDS
        while not struck.wait(0.05) and time.monotonic() < ends and life.exit_code is None:
            pass
        self._count(moment, struck, life)
        self.proxy.disarm()
        self.operator.kill()
        self.operator.life = None
        self.operator.free_lease()

    def _count(self, moment: Moment, struck: threading.Event, life: Life) -> None:
        """Count the end of a life: a kill, unless the operator has ended itself."""
        if struck.is_set() or life.exit_code is None:
            self.kills[moment] += 1
        else:
            self.exits += 1

    def keep_alive(self) -> None:
        """Start the operator again if it has ended by itself."""
        if not self.operator.is_running:
            self.exits += self.operator.life is not None
            self.operator.free_lease()
            self.operator.start()

    def endure(self, seconds: float, at_work: int) -> None:
        """Let the operator live for so long, with about so many runs that have not ended; it may end by itself."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if len(self.unfinished()) < at_work:
                self.make_runs(2)
            self.keep_alive()
            time.sleep(0.5)

    def take_turns(self, kills: int, at_work: int) -> None:
        """Kill the leader so many times at a random write; another replica waits for its lease each time."""
        standby = self.operator.twin()
        leader: ForkedOperator = self.operator
        leader.start()
        for _ in range(kills):
            if len(self.unfinished()) < at_work:
                self.make_runs(2)
            standby.start()
            struck, life = threading.Event(), leader.life
            assert life is not None
            moment = self._random.choice(list(Moment))
            self.proxy.kill_at(self._random.randint(1, MOST_WRITES), moment, partial(_strike, life, struck))
            struck.wait(LEASE_SECONDS)
            self._count(moment, struck, life)
            leader.kill()
            self.proxy.disarm()
            leader, standby = standby, leader
        for each in (leader, standby):
            each.kill()
        self.operator.free_lease()

    def calm_down(self) -> None:
        """No more faults: everything ends.

        Raises:
            TimeoutError: something did not; holds what is left.
        """
        self.plan.active = False
        self.keep_alive()

        def all_ended() -> bool:
            self.keep_alive()
            return not self.unfinished()

        try:
            eventually(all_ended, END_SECONDS, what="the end of all runs")
        except TimeoutError as error:
            for key, status in self.unfinished().items():
                error.add_note(f"{key}: {status}")
            raise
        self.rollouts.stop(END_SECONDS)
        eventually(self.rollouts.is_settled, END_SECONDS, what="a settled alias")

    def find_losses(self) -> list[str]:
        """What is not as it should be, now that all is over."""
        found = [*self.history.violations, *odd_ends(self.operator.log)]
        for (kind, name), body in self.made.items():
            found += self._judge(kind, name, body)
        wrong = {
            word for word, outcome in self.rollouts.outcomes.items() if outcome != self.rollouts.wanted[word]
        }
        found += [f"{word} should have been {self.rollouts.wanted[word]}" for word in wrong]
        found += [
            f"attempt {attempt} of {stage} of {owner} had the pods {sorted(names)}"
            for (owner, stage, attempt), names in self.pods.ended.items()
            if len(names) > 1
        ]
        return found

    def _judge(self, kind: str, name: str, body: Body) -> Iterator[str]:
        body = self.runs.read(kind, name)
        status, wanted = body["status"], attempts_of(self.seed, name, STAGES[kind])
        fails = kind == JOB and fails_for_good(self.seed, name)
        if status["phase"] != ("Failed" if fails else "Succeeded"):
            yield f"{kind} {name} is {status['phase']}: {status}"
        result = status.get("artifact", {}).get("digest") if kind == JOB else status.get("verdict")
        if not fails and result != (DIGEST if kind == JOB else "Pass"):
            yield f"{kind} {name} has lost its result: {status}"
        if status["observedGeneration"] != body["metadata"]["generation"]:
            yield f"{kind} {name} was observed in generation {status['observedGeneration']}"
        made = {path.removeprefix("jobs/") for path in self.runs.children(body) if path.startswith("jobs/")}
        uid6 = body["metadata"]["uid"].replace("-", "")[:6]
        if made != {f"{name}-{uid6}-{attempt}" for attempt in wanted}:
            yield f"{kind} {name} has the Jobs {sorted(made)} instead of {wanted}"
        records = self.runs.recorded_attempts(body)
        if sorted(records) != sorted(wanted):
            yield f"{kind} {name} has records of {sorted(records)} instead of {wanted}"
        if status.get("attempts") != len(wanted):
            yield f"{kind} {name} has {status.get('attempts')} attempts instead of {len(wanted)}"

    def wipe_and_compare(self) -> None:
        """Wipe the status of all runs: each comes back as it was, from the records alone."""
        before = {key: lasting(self.runs.status(*key)) for key in self.made}
        for key in before:
            self.runs.wipe_status(*key)
        for key, status in before.items():
            self.runs.wait_restored(*key, status)


def _strike(life: Life, struck: threading.Event) -> None:
    life.send(signal.SIGKILL)
    struck.set()


@contextmanager
def faulty_world(server: ControlPlane, folder: Path, plan: FaultPlan, releases: int) -> Iterator[FaultyWorld]:
    """A world in which nothing has begun but the first version of an alias; its operator does not run yet."""
    runs = Runs(server, folder)
    rows = {"metadata": {"name": "rows"}, "data": {"train.jsonl": "{}"}}
    server.api.create(f"/api/v1/namespaces/{runs.namespace}/configmaps", rows)
    history = WrittenHistory(WEIGHTS)
    with ExitStack() as stack:
        proxy = FaultProxy(server.kubeconfig, folder, plan, history.before, history.after)
        stack.enter_context(proxy)
        operator = ForkedOperator(server, folder, "", proxy.kubeconfig)
        rollouts = Rollouts(server, folder, operator, plan.seed, releases)
        operator.watch(runs.namespace, rollouts.namespace)
        stack.callback(operator.kill)
        stack.enter_context(rollouts)
        pods = stack.enter_context(RunPods(server, runs.namespace, plan.seed))
        yield FaultyWorld(runs, operator, proxy, plan, history, pods, rollouts, plan.seed)
