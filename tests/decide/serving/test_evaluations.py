"""Verdicts that open the gate of an alias, read from the records of EvalRuns."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from simulation.judged_runs import judged_run
from simulation.serving_world import START, World, build_adapter, digest_of

from tunesmith.decide.serving.admission.evaluations import ObservedEvalRun, read_evaluations
from tunesmith_contract.report import ComparedSide
from tunesmith_contract.shared_rules.verdict import Verdict

POLICY = digest_of("policy")
LATER = START + timedelta(hours=1)


def run(name: str, verdict: str = "Pass") -> ObservedEvalRun:
    return judged_run(name, digest_of("one"), verdict, START, POLICY)


def test_a_verdict_needs_its_record() -> None:
    without_record = replace(run("status-alone"), config_maps=())
    runs = (run("quality"), without_record, run("worse", "Fail"), run("open", "Inconclusive"))
    assert {found.name: found.verdict for found in read_evaluations(runs)} == {
        "quality": Verdict.PASS,
        "worse": Verdict.FAIL,
        "open": Verdict.INCONCLUSIVE,
    }


def test_the_candidate_of_the_record_counts_not_that_of_the_status() -> None:
    body = run("quality").body
    other = {"uri": "pvc://artifacts/x", "digest": digest_of("two")}
    claimed = replace(run("quality"), body={**body, "status": {**body["status"], "candidate": other}})
    assert [found.digest for found in read_evaluations([claimed])] == [digest_of("one")]


def serving(word: str, **requirement: str) -> World:
    """An alias that serves a version."""
    world = World(build_adapter(word, requireEvalRun={"verdict": "Pass", **requirement}))
    world.judge("first", word, "Pass")
    world.settle()
    assert world.adapter()["phase"] == "Stable"
    return world


def name_version(world: World, word: str, **requirement: str) -> None:
    world.set_adapter(build_adapter(word, requireEvalRun={"verdict": "Pass", **requirement}))
    world.settle()


def against(word: str, alias: str = "") -> dict[str, Any]:
    return {"baseline": ComparedSide(digest_of(word), alias)}


def test_a_comparison_with_the_serving_version_can_be_asked_for() -> None:
    world = serving("one", baseline="Serving")
    world.judge("with-base", "two", "Pass")
    name_version(world, "two", baseline="Serving")
    assert world.adapter()["phase"] == "Blocked"
    assert "which does not serve" in world.adapter()["message"]
    world.judge("with-serving", "two", "Pass", digest_of("other policy"), **against("one"))
    world.settle()
    assert world.adapter()["phase"] in {"Loading", "Progressing"}


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (against("zero", "assistants/expenses"), "which does not serve"),
        (against("one", "assistants/tickets"), "compared it with alias assistants/tickets"),
        (against("one", "assistants/expenses"), ""),
    ],
)
def test_a_comparison_with_an_alias_counts_while_that_version_serves(
    baseline: dict[str, Any], message: str
) -> None:
    world = serving("one")
    world.judge("compared", "two", "Pass", **baseline)
    name_version(world, "two")
    if message:
        assert world.adapter()["phase"] == "Blocked"
        assert message in world.adapter()["message"]
    else:
        assert world.adapter()["phase"] in {"Loading", "Progressing"}


def test_the_number_of_runs_is_shown() -> None:
    world = World(build_adapter("one", requireEvalRun={"verdict": "Pass"}))
    for name, verdict in (("a", "Inconclusive"), ("b", "Inconclusive"), ("c", "Pass")):
        world.now += timedelta(minutes=1)
        world.judge(name, "one", verdict)
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["evalRuns"]) == ("Stable", 3)


def test_a_version_that_serves_stays_when_a_later_run_fails() -> None:
    world = serving("one")
    world.now += timedelta(hours=1)
    world.judge("again", "one", "Fail")
    world.settle()
    assert world.adapter()["phase"] == "Stable"


def test_a_later_fail_closes_the_gate_before_a_version_serves() -> None:
    world = serving("one")
    world.judge("lucky", "two", "Pass")
    world.now += timedelta(hours=1)
    world.judge("again", "two", "Fail")
    name_version(world, "two")
    assert "again, the newest by its policy, says Fail" in world.adapter()["message"]


def test_a_prompted_candidate_opens_no_gate() -> None:
    world = World(build_adapter("one", requireEvalRun={"verdict": "Pass"}))
    world.judge("prompted", "one", "Pass", is_bare=False)
    world.settle()
    assert world.adapter()["phase"] == "Blocked"
    assert "prompted the candidate" in world.adapter()["message"]


def test_a_record_stands_in_the_way_whatever_status_says() -> None:
    forged = replace(run("forged", "Fail"), body=run("forged", "Pass").body)
    erased = replace(run("erased", "Fail"), body={"metadata": {"name": "erased"}})
    found = {each.name: (each.verdict, each.confirmed) for each in read_evaluations((forged, erased))}
    assert found == {"forged": (Verdict.FAIL, False), "erased": (Verdict.FAIL, False)}


@pytest.mark.parametrize("verdict", ["Fail", "Inconclusive"])
@pytest.mark.parametrize("status", [{}, {"verdict": "Pass"}, {"verdict": "Inconclusive"}])
def test_a_changed_status_hides_no_newer_run(verdict: str, status: dict[str, Any]) -> None:
    world = World(build_adapter("one", requireEvalRun={"verdict": "Pass"}))
    world.judge("lucky", "one", "Pass")
    world.now += timedelta(hours=1)
    world.judge("again", "one", verdict)
    body = {"metadata": {"name": "again"}, "status": status}
    world.eval_runs[-1] = replace(world.eval_runs[-1], body=body)
    world.settle()
    assert world.adapter()["phase"] == "Blocked"


def test_a_record_without_its_verdict_in_status_opens_no_gate() -> None:
    world = World(build_adapter("one", requireEvalRun={"verdict": "Pass"}))
    world.judge("ending", "one", "Pass")
    world.eval_runs[-1] = replace(world.eval_runs[-1], body={"metadata": {"name": "ending"}})
    world.settle()
    assert world.adapter()["phase"] == "Blocked"
    assert "ending has no verdict in status yet" in world.adapter()["message"]


def test_of_two_runs_that_end_in_the_same_second_the_worse_one_counts() -> None:
    world = World(build_adapter("one", requireEvalRun={"verdict": "Pass"}))
    world.judge("a", "one", "Inconclusive")
    world.judge("b", "one", "Pass")
    world.settle()
    assert "a says Inconclusive" in world.adapter()["message"]


def test_a_serving_version_that_was_prompted_is_no_comparison_with_what_serves() -> None:
    world = serving("one", baseline="Serving")
    hampered = ComparedSide(digest_of("one"), "assistants/expenses", is_bare=False)
    world.judge("hampered", "two", "Pass", baseline=hampered)
    name_version(world, "two", baseline="Serving")
    assert world.adapter()["phase"] == "Blocked"
    assert "hampered prompted the serving version" in world.adapter()["message"]


def failed_after_a_pass() -> World:
    """A version that passed an evaluation and then failed it, before it could serve."""
    world = serving("one")
    world.judge("lucky", "two", "Pass")
    world.now += timedelta(hours=1)
    world.judge("unlucky", "two", "Fail")
    return world


@pytest.mark.parametrize("verdict", ["Fail", "Inconclusive"])
def test_a_deleted_run_that_did_not_pass_goes_on_counting(verdict: str) -> None:
    world = serving("one")
    world.judge("lucky", "two", "Pass")
    world.now += timedelta(hours=1)
    world.judge("unlucky", "two", verdict)
    world.delete_run("unlucky")
    name_version(world, "two")
    assert world.adapter()["phase"] == "Blocked"
    assert "unlucky (deleted)" in world.adapter()["message"]
    assert verdict in world.adapter()["message"]
    assert world.adapter()["evalRuns"] == 2


def test_a_newer_pass_outvotes_a_deleted_fail_of_its_policy_alone() -> None:
    world = failed_after_a_pass()
    world.delete_run("unlucky")
    world.now += timedelta(hours=1)
    world.judge("easier", "two", "Pass", digest_of("another policy"))
    name_version(world, "two")
    assert world.adapter()["phase"] == "Blocked"
    world.judge("again", "two", "Pass")
    world.settle()
    assert world.adapter()["phase"] in {"Loading", "Progressing"}


def test_a_run_of_the_same_name_is_another_run() -> None:
    """As where a tool deletes and applies an EvalRun to run it again."""
    world = failed_after_a_pass()
    world.delete_run("unlucky")
    world.now += timedelta(hours=1)
    again = judged_run("unlucky", digest_of("two"), "Pass", world.now, POLICY)
    body = {**again.body, "metadata": {"name": "unlucky", "uid": "another"}}
    world.eval_runs.append(replace(again, body=body))
    name_version(world, "two")
    assert world.adapter()["phase"] in {"Loading", "Progressing"}
    assert world.adapter()["evalRuns"] == 3


def test_a_pass_opens_the_gate_only_while_its_run_exists() -> None:
    """Else whoever may write ConfigMaps could open it."""
    world = serving("one")
    world.judge("lucky", "two", "Pass")
    world.delete_run("lucky")
    name_version(world, "two")
    assert world.adapter()["phase"] == "Blocked"
    assert "lucky no longer exists: evaluate again" in world.adapter()["message"]


def test_deleted_passes_hide_no_fail_and_no_pass() -> None:
    world = failed_after_a_pass()
    world.now += timedelta(hours=1)
    world.judge("third", "two", "Pass")
    world.delete_run("third")
    name_version(world, "two")
    assert "unlucky" in world.adapter()["message"]
    world = serving("one")
    world.judge("first", "two", "Pass")
    world.now += timedelta(hours=1)
    world.judge("second", "two", "Pass")
    world.delete_run("second")
    name_version(world, "two")
    assert world.adapter()["phase"] in {"Loading", "Progressing"}


def test_a_version_that_was_admitted_stays_so_when_its_pass_is_deleted() -> None:
    world = serving("one")
    world.judge("good", "two", "Pass")
    name_version(world, "two")
    world.delete_run("good")
    world.settle()
    assert world.adapter()["phase"] in {"Loading", "Progressing", "Stable"}


def test_a_lost_record_of_a_run_that_failed_goes_on_counting() -> None:
    world = failed_after_a_pass()
    world.eval_runs[-1] = replace(world.eval_runs[-1], config_maps=())
    name_version(world, "two")
    assert "unlucky (deleted), the newest by its policy, says Fail" in world.adapter()["message"]
