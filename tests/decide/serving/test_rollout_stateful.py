"""Whatever happens, in whatever order, killed anywhere: what a rollout never does."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from long_form import cases
from simulation.serving_world import FakePod, World, build_adapter, digest_of

from tunesmith.api.actions import Verb
from tunesmith.controller_runtime.errors import Conflict
from tunesmith.decide.plan import Plan
from tunesmith.manifests.serving_config_maps import RECORD_KEY, alias_of
from tunesmith.manifests.version_revision import read_rejection
from tunesmith_contract.agent import PROOF_FAILED, DesiredAlias

NAMES = ("expenses", "tickets")
WORDS = ("one", "two", "three", "four")
names = st.sampled_from(NAMES)
words = st.sampled_from(WORDS)


class RolloutMachine(RuleBasedStateMachine):
    """Two aliases on a few pods, with operators that may be killed between any two actions, or stand still."""

    @initialize(gated=st.booleans(), remembered=st.sampled_from([0, 10]))
    def begin(self, gated: bool, remembered: int) -> None:
        self.gated, self.remembered = gated, remembered
        adapters = (self.adapter("one", name) for name in NAMES)
        self.world = World(*adapters, revisionHistoryLimit=remembered)
        self.rejected: set[tuple[str, str]] = set()
        self.numbers: dict[tuple[str, int], str] = {}
        self.told: tuple[int, dict[str, DesiredAlias]] = (0, {})
        self.pod_count = len(self.world.pods)
        self.is_complete = False
        self.edited: set[str] = set()
        self.taken_back: set[str] = set()
        self.passed: set[str] = set()
        self.stale: tuple[Plan, dict[tuple[str, str], bool]] | None = None

    def adapter(self, word: str, name: str, **fields: Any) -> dict[str, Any]:
        requirement = {"verdict": "Pass" if self.gated else "None"}
        return build_adapter(word, name=name, requireEvalRun=requirement, **fields)

    # What people and clusters do.

    @rule(word=words, name=names, paused=st.booleans())
    def name_another_artifact(self, word: str, name: str, paused: bool) -> None:
        self.world.set_adapter(self.adapter(word, name, paused=paused))

    @rule(word=words, verdict=st.sampled_from(["Pass", "Fail", "Inconclusive"]))
    def judge(self, word: str, verdict: str) -> None:
        self.world.judge(f"run-{len(self.world.eval_runs)}", word, verdict)
        if verdict == "Pass":
            self.passed.add(digest_of(word))

    @rule(seconds=st.sampled_from([1, 10, 60, 120]))
    def wait(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @rule(data=st.data(), requests=st.integers(1, 60), bad=st.booleans())
    def answer(self, data: st.DataObject, requests: int, bad: bool) -> None:
        for pod in self.world.pods.values():
            held = [(alias, digest) for alias, digests in pod.aliases.items() for digest in digests]
            if held:
                alias, digest = data.draw(st.sampled_from(held))
                pod.serve(alias, digest, requests, requests if bad else 0)

    @rule()
    def add_pod(self) -> None:
        name = f"pod-{self.pod_count}"
        self.pod_count += 1
        self.world.pods[name] = FakePod(name, f"uid-{name}")

    @rule(
        data=st.data(),
        what=st.sampled_from(["remove", "restart", "disconnect", "connect", "unready", "ready"]),
    )
    def change_pod(self, data: st.DataObject, what: str) -> None:
        if not self.world.pods:
            return
        pod = self.world.pods[data.draw(st.sampled_from(sorted(self.world.pods)))]
        match what:
            case "remove":
                self.world.remove_pod(pod.name)
            case "restart":
                self.world.restart_agent(pod.name)
            case "disconnect" | "connect":
                pod.connected = what == "connect"
            case "unready" | "ready":
                pod.ready = what == "ready"

    @rule(word=words, how=st.sampled_from(["slow", "refuted", "broken", "well"]))
    def change_loading(self, word: str, how: str) -> None:
        digest = digest_of(word)
        self.world.slow.discard(digest)
        self.world.failing.pop(digest, None)
        if how == "slow":
            self.world.slow.add(digest)
        elif how != "well":
            reason = PROOF_FAILED if how == "refuted" else "ArtifactNotFound"
            self.world.failing[digest] = (reason, "told by the test")

    @rule()
    def wipe_status(self) -> None:
        self.world.status = {}

    @rule(seconds=st.sampled_from([-600, 600]))
    def set_the_clock(self, seconds: int) -> None:
        self.world.jump(seconds)

    @rule()
    def forget_ended_agents(self) -> None:
        self.world.ended.clear()

    @precondition(lambda self: self.is_complete)
    @rule(name=names, text=st.sampled_from(["", "{}", None]))
    def edit_a_record(self, name: str, text: str | None) -> None:
        self.world.edit(self.world.record_name(name), RECORD_KEY, text)
        self.edited.add(name)

    @rule(
        name=names,
        verb=st.sampled_from(list(Verb)),
        identity=st.integers(0, 40),
        word=st.none() | words,
        number=st.none() | st.integers(1, 5),
    )
    def ask_for_an_action(
        self, name: str, verb: Verb, identity: int, word: str | None, number: int | None
    ) -> None:
        """A person writes the annotation, perhaps with an ID that is known."""
        action: dict[str, Any] = {"id": f"id-{identity}", "adapter": name, "verb": verb}
        if verb is Verb.UNDO and number is not None:
            action["toVersion"] = number
        elif word is not None:
            action["digest"] = digest_of(word)
        self.world.annotate(json.dumps(action))
        if verb in (Verb.ABORT, Verb.UNDO):
            self.taken_back.add(name)

    # What the operator does.

    @rule()
    def reconcile(self) -> None:
        self.watched(None)

    @rule()
    def stand_still(self) -> None:
        """A leader plans, and does not act; another one takes over."""
        proven = self.proven()
        self.stale = self.world.reconcile(actions=0), proven
        self.world.environment = replace(self.world.environment, term=self.world.environment.term + 1)

    @precondition(lambda self: self.stale is not None)
    @rule(actions=st.integers(0, 12))
    def wake_up(self, actions: int) -> None:
        """The former leader acts by what it had observed."""
        assert self.stale is not None
        (plan, proven), self.stale = self.stale, None
        self.is_complete = False
        with contextlib.suppress(Conflict), self.compared(proven):
            self.world.carry_out(plan, actions)

    @rule(actions=st.integers(0, 6))
    def be_killed(self, actions: int) -> None:
        self.watched(actions)

    @rule(word=words, name=names, bad=st.booleans(), kills=st.lists(st.integers(0, 6), max_size=4))
    def roll_out(self, word: str, name: str, bad: bool, kills: list[int]) -> None:
        """The usual way of a version, with kills where they hurt."""
        self.judge(word, "Pass")
        self.change_loading(word, "well")
        self.world.set_adapter(self.adapter(word, name))
        for pod in self.world.pods.values():
            pod.ready = pod.connected = True
        for seconds in (0, 0, 0, 10, 120, 120):
            self.world.now += timedelta(seconds=seconds)
            for pod in self.world.pods.values():
                pod.serve(name, digest_of(word), 30, 30 if bad else 0)
            self.watched(kills.pop() if kills else None)

    def check(self) -> None:
        """The invariants, within a rule: one that reconciles twice may end where it began."""
        self.generation_grows_with_each_change_and_only_then()
        self.rejected_digests_get_nothing()
        self.numbers_are_given_once()

    def proven(self) -> dict[tuple[str, str], bool]:
        return {
            (name, digest_of(word)): self.is_proven(name, digest_of(word)) for name in NAMES for word in WORDS
        }

    def watched(self, actions: int | None) -> None:
        """Reconcile, and check that weight was only given to what was proven then."""
        with self.compared(self.proven()):
            plan = self.world.reconcile(actions)
            self.is_complete = actions is None or actions > len(plan.actions)
        if self.is_complete:
            self.edited.clear()
            self.taken_back.clear()
        self.check()

    @contextlib.contextmanager
    def compared(self, proven: dict[tuple[str, str], bool]) -> Iterator[None]:
        """Check what the block changes."""
        before = self.told[1]
        yield
        for name, alias in self.aliases().items():
            old = before.get(name, DesiredAlias(name=name))
            raised = alias.candidate != old.candidate or alias.weight > old.weight
            if alias.candidate == old.candidate and name not in self.edited | self.taken_back:
                assert alias.weight >= old.weight, "a client could change sides twice"
            if alias.candidate and raised and alias.weight:
                assert proven[name, alias.candidate.digest], "weight for what is not proven"
            if alias.stable != old.stable and alias.stable != old.previous:
                assert alias.stable is not None, "a name lost its version"
                assert proven[name, alias.stable.digest], "promoted what is not proven"
                assert not self.gated or alias.stable.digest in self.passed, "promoted without an evaluation"

    def is_proven(self, name: str, digest: str) -> bool:
        ready = [pod for pod in self.world.pods.values() if pod.ready]
        healthy = digest not in self.world.slow and digest not in self.world.failing
        holding = sum(pod.connected and digest in pod.aliases.get(name, ()) for pod in ready)
        return bool(ready) and healthy and 2 * holding >= len(ready)

    def aliases(self) -> dict[str, DesiredAlias]:
        if not self.world.of_kind("ConfigMap"):
            return {}
        try:
            return {alias.name: alias for alias in self.world.desired.aliases}
        except StopIteration:
            return {}

    # What never happens.

    @invariant()
    def generation_grows_with_each_change_and_only_then(self) -> None:
        generation, before = self.told
        now = self.aliases()
        if not now:
            return
        after = self.world.desired.generation
        assert (after > generation) if now != before else (after >= generation)
        self.told = (after, now)

    @invariant()
    def rejected_digests_get_nothing(self) -> None:
        for revision in self.world.of_kind("ControllerRevision"):
            if read_rejection(revision):
                self.rejected.add((revision["data"]["alias"], revision["data"]["digest"]))
        if not self.is_complete or self.edited:
            return
        for name in filter(None, map(alias_of, self.world.of_kind("ConfigMap"))):
            record = self.world.record(name)
            for rejection in record.effective_rejections:
                self.rejected.add((name, rejection.version.digest))
            lifted = (lift.digest for lift in record.lifts if not record.is_rejected(lift.digest))
            self.rejected.difference_update((name, digest) for digest in lifted)
            identities = [outcome.id for outcome in record.actions]
            assert len(identities) == len(set(identities)), "an action was done twice"
        for name, alias in self.aliases().items():
            assert alias.candidate is None or (name, alias.candidate.digest) not in self.rejected
            assert alias.stable is None or (name, alias.stable.digest) not in self.rejected
            for pod in self.world.pods.values():
                if pod.connected and pod.generation >= self.world.desired.generation:
                    held = {(name, digest) for digest in pod.aliases.get(name, ())}
                    assert not held & self.rejected, "a pod holds what was rejected"

    @invariant()
    def numbers_are_given_once(self) -> None:
        named = [
            (name, version)
            for name, alias in self.aliases().items()
            for version in (alias.stable, alias.candidate)
        ]
        for name, version in named:
            if version:
                assert self.numbers.setdefault((name, version.version), version.digest) == version.digest
        digests = [(name, digest) for (name, _), digest in self.numbers.items()]
        assert not self.remembered or len(digests) == len(set(digests)), "a version has two numbers"

    @invariant()
    def versions_in_use_are_remembered(self) -> None:
        if not self.is_complete or self.edited:
            return
        data = [revision["data"] for revision in self.world.of_kind("ControllerRevision")]
        remembered = {(each["alias"], each["digest"]) for each in data}
        for name, alias in self.aliases().items():
            used = {version.digest for version in (alias.stable, alias.candidate, alias.previous) if version}
            assert {(name, digest) for digest in used} <= remembered

    @invariant()
    def stable_and_candidate_differ(self) -> None:
        for alias in self.aliases().values():
            if alias.stable and alias.candidate:
                assert alias.stable.digest != alias.candidate.digest
            assert alias.candidate or alias.weight == 0

    @precondition(lambda self: self.world.status)
    @rule()
    def status_comes_back_from_the_records(self) -> None:
        self.watched(None)
        self.world.now += timedelta(seconds=10)
        self.watched(None)
        for _ in range(3):
            self.watched(None)
        before = self.world.status
        self.world.status = {}
        self.world.reconcile()
        assert self.world.status["adapters"] == before["adapters"]


RolloutMachine.TestCase.settings = settings(max_examples=cases(20, 1000), stateful_step_count=25)
TestRollout = RolloutMachine.TestCase
