"""Verdicts that open the gate of an alias, read from the records of EvalRuns."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from simulation.judged_runs import judged_run
from simulation.serving_world import START, World, build_adapter, digest_of

from tunesmith.api.reasons import Verdict
from tunesmith.decide.serving.evaluations import ObservedEvalRun, read_evaluations
from tunesmith_contract.report import ComparedSide

POLICY = digest_of("policy")
LATER = START + timedelta(hours=1)


def run(name: str, verdict: str = "Pass") -> ObservedEvalRun:
    return judged_run(name, digest_of("one"), verdict, START, POLICY)


def test_a_verdict_needs_its_record_and_its_status() -> None:
    forged = replace(run("forged", "Fail"), body=run("forged", "Pass").body)
    without_record = replace(run("status-alone"), config_maps=())
    unfinished = replace(run("record-alone"), body={"metadata": {"name": "record-alone"}})
    runs = (
        run("quality"),
        forged,
        without_record,
        unfinished,
        run("worse", "Fail"),
        run("open", "Inconclusive"),
    )
    assert [(found.name, found.verdict) for found in read_evaluations(runs)] == [
        ("open", Verdict.INCONCLUSIVE),
        ("quality", Verdict.PASS),
        ("worse", Verdict.FAIL),
    ]


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
