"""Actions that people ask for: done or refused once, recorded, and never past a gate."""

import json
from dataclasses import replace
from typing import Any

import pytest
from simulation.serving_world import ENVIRONMENT, NAME, World, build_adapter, digest_of

from tunesmith.decide.plan import Push
from tunesmith.decide.serving.records.history import MAX_KNOWN_ACTIONS, History
from tunesmith.manifests.serving_config_maps import HISTORY_KEY, RECORD_KEY, history_name
from tunesmith_contract.agent import DesiredAlias

ONE, TWO, THREE = digest_of("one"), digest_of("two"), digest_of("three")


def canary(**fields: Any) -> World:
    """Version 2 is at its first step beside version 1."""
    world = World(build_adapter("one", **fields))
    world.settle()
    world.set_adapter(build_adapter("two", **fields))
    world.settle()
    assert world.adapter()["candidate"]["weight"] == 5
    return world


def promoted() -> World:
    """Version 2 has just replaced version 1."""
    world = canary()
    world.ask("promote", "first")
    assert world.adapter()["stable"]["version"] == 2
    return world


def long_promoted() -> World:
    """Version 2 is stable, and version 1 is not kept any more."""
    world = promoted()
    world.pass_seconds(700)
    assert "previous" not in world.adapter()
    return world


def alias(world: World, name: str = "expenses") -> DesiredAlias:
    return next(found for found in world.desired.aliases if found.name == name)


def test_pause_holds_a_rollout_until_resume() -> None:
    world = canary()
    result = world.ask("pause", by="ada", reason="lunch")
    assert (result["result"], result["by"], result["manager"], result["reason"]) == (
        "Done",
        "ada",
        "kubectl-annotate",
        "lunch",
    )
    assert world.adapter()["phase"] == "Paused"
    assert "until the action resume" in world.adapter()["message"]
    world.pass_seconds(600)
    assert (world.adapter()["candidate"]["weight"], world.adapter()["paused"]) == (5, True)
    assert world.ask("resume")["result"] == "Done"
    world.pass_seconds(10)
    assert world.adapter()["candidate"]["weight"] == 25
    assert world.adapter()["paused"] is False


def test_the_spec_wins_over_resume_and_promote() -> None:
    world = canary()
    world.set_adapter(build_adapter("two", paused=True))
    for verb in ("resume", "promote"):
        result = world.ask(verb)
        assert (result["result"], result["message"]) == (
            "Refused",
            "paused is true in spec.adapters: write paused: false there",
        )
    assert world.adapter()["phase"] == "Paused"
    world.set_adapter(build_adapter("two"))
    world.pass_seconds(200)
    assert world.adapter()["stable"]["version"] == 2


def test_promote_skips_the_steps_and_a_pause() -> None:
    world = canary()
    world.ask("pause")
    world.ask("promote", digest=TWO.removeprefix("sha256:")[:12])
    assert (alias(world).stable, alias(world).weight) == (world.record().stable, 0)
    assert world.adapter()["stable"]["digest"] == TWO
    assert world.adapter()["paused"] is False


def test_promote_waits_until_the_version_is_active() -> None:
    world = canary()
    world.slow.add(THREE)
    world.set_adapter(build_adapter("three"))
    world.settle()
    world.ask("promote")
    world.pass_seconds(300)
    assert world.adapter()["stable"]["digest"] == ONE
    world.slow.clear()
    world.pass_seconds(5)
    assert world.adapter()["stable"]["digest"] == THREE


def test_promote_is_refused_where_it_would_do_harm() -> None:
    world = canary()
    world.pods["pod-0"].tripped.add(("expenses", TWO))
    result = world.ask("promote")
    assert result["result"] == "Refused"
    assert "pod-0 sends it no requests" in result["message"]
    assert "ActionRefused" in world.reasons()
    world.pods["pod-0"].tripped.clear()
    world.failing[TWO] = ("EngineRefused", "the rank is too high")
    world.permanent.add(TWO)
    result = world.ask("promote", "again")
    assert (result["result"], "the rank is too high" in result["message"]) == ("Refused", True)


def test_a_promoted_candidate_whose_breaker_opens_before_it_is_active_stays() -> None:
    world = canary()
    world.slow.add(TWO)
    world.ask("promote")
    world.slow.clear()
    world.pods["pod-0"].tripped.add(("expenses", TWO))
    world.pass_seconds(5)
    assert world.adapter()["stable"]["digest"] == ONE


def test_promote_never_opens_the_gate() -> None:
    world = World(build_adapter("one"))
    world.settle()
    world.set_adapter(build_adapter("two", requireEvalRun={"verdict": "Pass"}))
    world.settle()
    result = world.ask("promote")
    assert (result["result"], "no version is being rolled out" in result["message"]) == ("Refused", True)
    world.judge("run-1", "two", "Pass")
    world.settle()
    world.judge("run-2", "two", "Fail")
    result = world.ask("promote", "again")
    assert (result["result"], "the gate is not open" in result["message"]) == ("Refused", True)
    assert world.adapter()["stable"]["digest"] == ONE


def test_abort_is_sent_first_alone_and_rejects_by_the_users_word() -> None:
    world = World(build_adapter("one"), build_adapter("one", name="tickets"))
    world.settle()
    world.set_adapter(build_adapter("two"))
    world.settle()
    world.set_adapter(build_adapter("two", name="tickets"))
    world.annotate(json.dumps({"id": "a", "adapter": "expenses", "verb": "abort", "by": "ada"}))
    plan = world.reconcile()
    pushes = [action for action in plan.actions if isinstance(action, Push)]
    first = {found.name: found for found in pushes[0].publication.desired.aliases}
    assert first["expenses"].candidate is None and first["expenses"].rejected == (TWO,)
    assert first["tickets"].candidate is None, "the push holds this change alone"
    assert plan.actions.index(pushes[0]) == 1
    world.settle()
    rejected = world.adapter()["rejected"][0]
    assert (rejected["digest"], rejected["reason"], rejected["by"]) == (TWO, "Aborted", "ada")
    assert world.adapter()["phase"] == "RolledBack"


def test_an_action_on_another_version_than_it_names_is_refused() -> None:
    world = canary()
    for verb in ("pause", "resume", "promote", "abort"):
        result = world.ask(verb, digest=THREE)
        assert (result["result"], "version 2" in result["message"]) == ("Refused", True)
    assert world.adapter()["candidate"]["weight"] == 5


def test_retry_lets_a_rejected_version_be_rolled_out_by_steps() -> None:
    world = canary()
    world.pods["pod-0"].serve("expenses", TWO, 40, 40)
    world.pass_seconds(10)
    assert world.adapter()["phase"] == "RolledBack"
    assert world.ask("retry", "without-a-digest")["result"] == "Done"
    assert world.adapter()["candidate"]["weight"] == 5
    assert world.adapter()["rejected"] == []
    for pod in world.pods.values():
        pod.serve("expenses", TWO, 40, 40)
    world.pass_seconds(20)
    assert world.adapter()["phase"] == "RolledBack", (
        "it is analysed like any other, and may be rejected again"
    )
    refused = world.ask("retry", digest=ONE)
    assert (refused["result"], TWO in refused["message"]) == ("Refused", True)


@pytest.mark.parametrize("seconds", [-600, 600])
def test_a_clock_that_jumps_changes_no_retry(seconds: int) -> None:
    world = canary()
    world.ask("abort")
    world.jump(seconds)
    world.ask("retry", digest=TWO)
    assert alias(world).candidate is not None
    world.jump(-seconds)
    world.ask("abort", "second")
    assert (alias(world).candidate, alias(world).rejected) == (None, (TWO,))


def test_a_lifted_rejection_leaves_no_trace_that_could_come_back() -> None:
    world = canary()
    world.ask("abort")
    world.ask("retry", digest=TWO)
    world.edit(world.record_name(), RECORD_KEY, "broken")
    world.settle()
    assert alias(world).candidate is not None
    world.recreate()
    world.settle()
    assert (alias(world).rejected, world.adapter()["candidate"]["digest"]) == ((), TWO)


def test_a_retry_reaches_a_rejection_of_an_earlier_resource() -> None:
    world = canary()
    world.ask("abort")
    world.recreate()
    world.settle()
    assert world.adapter()["phase"] == "RolledBack"
    world.ask("retry", "later")
    assert world.adapter()["candidate"]["digest"] == TWO


def test_undo_is_at_once_while_the_previous_version_is_loaded() -> None:
    world = promoted()
    world.annotate(json.dumps({"id": "u", "adapter": "expenses", "verb": "undo", "reason": "rude"}))
    plan = world.reconcile()
    first = next(action for action in plan.actions if isinstance(action, Push))
    assert plan.actions.index(first) == 1
    sent = first.publication.desired.aliases[0]
    assert sent.stable is not None
    assert (sent.stable.digest, sent.rejected) == (ONE, (TWO,))
    world.settle()
    assert world.adapter()["phase"] == "RolledBack", "the source still names version 2"
    assert world.adapter()["rejected"][0]["reason"] == "Undone"
    world.pass_seconds(1000)
    assert world.adapter()["stable"]["digest"] == ONE


def test_undo_loads_a_version_that_is_gone_and_switches_when_it_is_active() -> None:
    world = long_promoted()
    world.slow.add(ONE)
    assert world.ask("undo", toVersion=1)["result"] == "Done"
    assert (alias(world).candidate.digest, alias(world).weight) == (ONE, 0)  # type: ignore[union-attr]
    world.pass_seconds(300)
    assert (world.adapter()["stable"]["digest"], alias(world).rejected) == (TWO, ())
    world.slow.clear()
    world.settle()
    assert (world.adapter()["stable"]["digest"], alias(world).rejected) == (ONE, (TWO,))
    assert "candidate" not in world.adapter()


def test_undo_takes_a_candidate_back_too() -> None:
    world = promoted()
    world.set_adapter(build_adapter("three"))
    world.settle()
    world.ask("undo")
    assert alias(world).stable.digest == ONE  # type: ignore[union-attr]
    assert set(alias(world).rejected) == {TWO, THREE}


def test_undo_under_way_ends_when_the_source_names_another_version() -> None:
    world = long_promoted()
    world.slow.add(ONE)
    world.ask("undo")
    world.set_adapter(build_adapter("three"))
    world.settle()
    assert world.adapter()["candidate"]["digest"] == THREE
    assert world.record().undo is None


def test_undo_under_way_outlives_a_lost_record() -> None:
    world = long_promoted()
    world.slow.add(ONE)
    world.ask("undo")
    world.edit(world.record_name(), RECORD_KEY, "{}")
    world.settle()
    world.slow.clear()
    world.settle()
    assert world.adapter()["stable"]["digest"] == ONE


def test_abort_gives_an_undo_up_without_rejecting() -> None:
    world = long_promoted()
    world.slow.add(ONE)
    world.ask("undo")
    world.ask("abort")
    assert (alias(world).candidate, alias(world).rejected) == (None, ())
    assert world.adapter()["phase"] == "Stable"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"toVersion": 2}, "is the stable one"),
        ({"toVersion": 9}, "these did: 1"),
        ({"digest": THREE}, "these did: 1"),
    ],
)
def test_undo_says_why_it_is_refused(fields: dict[str, Any], said: str) -> None:
    result = promoted().ask("undo", **fields)
    assert (result["result"], said in result["message"]) == ("Refused", True)


@pytest.mark.parametrize(
    ("named", "said"),
    [(TWO, ") is being rolled out: write promote"), (THREE, "has never answered all requests")],
)
def test_undo_goes_back_only(named: str, said: str) -> None:
    world = World(build_adapter("one"))
    world.settle()
    world.set_adapter(build_adapter("three"))
    world.settle()
    world.set_adapter(build_adapter("two"))
    world.settle()
    result = world.ask("undo", digest=named)
    assert (result["result"], said in result["message"]) == ("Refused", True)


def test_undo_does_not_go_to_what_is_rejected_or_out_of_reach() -> None:
    world = promoted()
    world.ask("undo", "back")
    assert "is rejected: write retry" in world.ask("undo", toVersion=2)["message"]
    world = long_promoted()
    world.set_adapter(build_adapter("two", source={"uri": "hf://a/b", "digest": TWO}))
    world.spec = world.spec | {"artifactVolumes": []}
    assert "artifactVolumes" in world.ask("undo")["message"]


def test_a_known_id_does_nothing_again_whoever_asks() -> None:
    world = canary()
    world.ask("abort", "same")
    world.ask("retry", "lift", digest=TWO)
    text = json.dumps({"id": "same", "adapter": "expenses", "verb": "abort"})
    world.annotate(text, manager="argocd")
    world.settle()
    assert alias(world).candidate is not None
    world.environment = replace(ENVIRONMENT, term=5)
    world.edit(world.record_name(), RECORD_KEY, None)
    world.settle()
    assert alias(world).candidate is not None, "the record was lost, the history knows the action"
    world.recreate()
    world.settle()
    assert alias(world).candidate is not None, "the resource is another one"
    assert alias(world).rejected == ()


def test_an_annotated_action_is_remembered_however_many_follow() -> None:
    world = canary()
    kept = {"id": "kept", "adapter": "expenses", "verb": "pause"}
    for number in range(MAX_KNOWN_ACTIONS + 5):
        other = {"id": f"other-{number}", "adapter": "expenses", "verb": "resume"}
        world.annotate(json.dumps([kept, other]))
        world.settle(2)
    assert world.adapter()["paused"] is False
    assert (len(world.adapter()["actions"]), len(world.record().actions)) == (5, 10)
    body = world.objects["ConfigMap", history_name(NAME)]
    assert len(History.model_validate_json(body["data"][HISTORY_KEY]).aliases[0].actions) == MAX_KNOWN_ACTIONS


@pytest.mark.parametrize("verb", ["pause", "promote", "abort", "undo"])
def test_an_operator_that_is_killed_at_any_line_acts_once(verb: str) -> None:
    for killed in range(12):
        world = canary()
        world.annotate(json.dumps({"id": "x", "adapter": "expenses", "verb": verb}))
        world.reconcile(killed)
        world.reconcile(killed)
        world.settle()
        results = [result["id"] for result in world.adapter()["actions"]]
        assert results == ["x"]
        if verb == "abort":
            world.set_adapter(build_adapter("three"))
            world.settle()
            assert alias(world).candidate.digest == THREE  # type: ignore[union-attr]


def test_a_pause_outlives_a_lost_record() -> None:
    world = canary()
    world.ask("pause")
    world.edit(world.record_name(), RECORD_KEY, "broken")
    world.settle()
    assert (world.adapter()["paused"], world.adapter()["candidate"]["weight"]) == (True, 0)


def test_several_actions_at_once_are_done_in_their_order() -> None:
    world = World(build_adapter("one"), build_adapter("one", name="tickets"))
    world.settle()
    for name in ("expenses", "tickets"):
        world.set_adapter(build_adapter("two", name=name))
    world.settle()
    listed = [
        {"id": "1", "adapter": "expenses", "verb": "abort"},
        {"id": "2", "adapter": "expenses", "verb": "retry", "digest": TWO},
        {"id": "1", "adapter": "tickets", "verb": "promote"},
    ]
    world.annotate(json.dumps(listed))
    world.settle()
    assert [result["id"] for result in world.adapter()["actions"]] == ["2", "1"]
    assert alias(world).candidate is not None
    assert world.adapter("tickets")["stable"]["version"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{id: 1}", "not JSON"),
        ("[" * 5000, "not JSON"),
        ("7", "action"),
        ('{"id":"x","adapter":"expenses","verb":"explode"}', "'pause', 'resume'"),
        ('{"id":"x","adapter":"expensive","verb":"pause"}', "expensive is not in spec.adapters"),
        ('{"id":"x","adapter":"expenses","verb":"pause","sure":true}', "sure: unknown field"),
        (
            '{"id":"x","adapter":"expenses","verb":"pause","toVersion":1}',
            "toVersion belongs to the verb undo",
        ),
        ('{"id":1,"adapter":"expenses","verb":"pause"}', "id: "),
        ('{"adapter":"expenses","verb":"pause"}', "id: "),
        (
            json.dumps([{"id": str(n), "adapter": "expenses", "verb": "pause"} for n in range(65)]),
            "at most 64",
        ),
        (
            json.dumps([{"id": "x", "adapter": "expenses", "verb": verb} for verb in ("resume", "pause")]),
            "the id x stands twice",
        ),
        (
            json.dumps([{"id": str(n), "adapter": "expenses", "verb": "resume"} for n in range(11)]),
            "at most 10 actions for one adapter",
        ),
    ],
)
def test_what_is_not_understood_is_said_once_and_withholds_nothing(text: str, said: str) -> None:
    world = canary()
    world.annotate(text)
    world.pass_seconds(600)
    condition = world.condition("ActionsValid")
    assert (condition["status"], condition["reason"]) == ("False", "InvalidAction")
    assert said in condition["message"]
    assert world.reasons().count("InvalidAction") == 1
    assert world.adapter()["stable"]["version"] == 2, "the rollout went on"
    assert world.condition("Ready")["status"] == "True"
    world.annotations = {}
    world.settle()
    assert world.condition("ActionsValid")["status"] == "True"


def test_one_bad_action_of_a_list_keeps_no_other_from_being_done() -> None:
    world = canary()
    good = {"id": "g", "adapter": "expenses", "verb": "pause"}
    world.annotate(json.dumps([{"id": "b", "adapter": "expenses", "verb": "stop"}, good, good]))
    world.settle()
    assert world.adapter()["paused"]
    message = world.condition("ActionsValid")["message"]
    assert "action [0]: verb" in message and "action [2]: the id g stands twice" in message


def test_an_id_that_is_used_for_something_else_is_said() -> None:
    world = canary()
    world.ask("pause", "1")
    world.ask("resume", "1")
    assert world.adapter()["paused"] is True
    assert "the id 1 was used for another action" in world.condition("ActionsValid")["message"]
    for number in range(12):
        world.ask("pause", f"more-{number}")
    world.ask("resume", "1")
    assert world.adapter()["paused"] is True, "also when only the history knows it"
