"""Verdicts that open the gate of an alias, read from the records of EvalRuns."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from simulation.judged_runs import judged_run
from simulation.serving_world import START, World, build_adapter, digest_of

from tunesmith.decide.serving.evaluations import ObservedEvalRun, read_evaluations
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
