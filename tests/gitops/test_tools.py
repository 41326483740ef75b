"""GitOps tools on resources in each of their states: kstatus as Flux computes it, Argo CD's scripts as it runs them."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from simulation.resource_states import (
    Body,
    ResourceState,
    canary,
    resource_states,
    serving_body,
    settled,
)
from simulation.serving_world import build_adapter
from simulation.simulated_cluster import fine_tune_job

from tunesmith.api import GROUP, KINDS
from tunesmith.api.actions import ACTION_ANNOTATION, Verb
from tunesmith_cluster.binaries import program

ARGOCD = Path(__file__).parents[2] / "examples" / "gitops" / "argocd" / "argocd-cm.yaml"
SETTINGS: dict[str, str] = yaml.safe_load(ARGOCD.read_text())["data"]


@pytest.fixture(scope="module")
def all_states() -> list[ResourceState]:
    """Resources in each state."""
    return resource_states()


def judge(bodies: Sequence[Body], *arguments: str) -> list[dict[str, Any]]:
    """What a tool says of each resource."""
    lines = "\n".join(map(json.dumps, bodies))
    command = [program("gitops"), *arguments]
    result = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in result.stdout.splitlines()]


def run_script(
    folder: Path, script: str, bodies: Sequence[Body], parameters: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """What a script of Argo CD returns for each resource."""
    file = folder / "script.lua"
    file.write_text(script)
    return judge(bodies, "lua", str(file), json.dumps(parameters or {}))


def actions_of(kind: str) -> dict[str, Any]:
    """Discovery and definitions of a kind's actions."""
    found: dict[str, Any] = yaml.safe_load(SETTINGS[f"resource.customizations.actions.{GROUP}_{kind}"])
    return found


def script_of(kind: str, name: str) -> str:
    """The script of an action."""
    return next(str(each["action.lua"]) for each in actions_of(kind)["definitions"] if each["name"] == name)


def enabled(folder: Path, body: Body) -> set[str]:
    """Names of the actions that Argo CD offers."""
    (found,) = run_script(folder, actions_of(body["kind"])["discovery.lua"], [body])
    return {name for name, action in found.items() if not action["disabled"]}


def test_kstatus_reads_each_state(all_states: list[ResourceState]) -> None:
    judged = judge([state.body for state in all_states], "status")
    found = {state.title: answer["status"] for state, answer in zip(all_states, judged, strict=True)}
    assert found == {state.title: state.kstatus for state in all_states}
    assert {state.kstatus for state in all_states} == {"InProgress", "Current", "Failed", "Terminating"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)
def test_argo_cd_reads_each_state(kind: Any, all_states: list[ResourceState], tmp_path: Path) -> None:
    states = [state for state in all_states if state.body["kind"] == kind.kind_name]
    script = SETTINGS[f"resource.customizations.health.{GROUP}_{kind.kind_name}"]
    answers = run_script(tmp_path, script, [state.body for state in states])
    found = {state.title: answer["status"] for state, answer in zip(states, answers, strict=True)}
    assert found == {state.title: state.health for state in states}
    for state, answer in zip(states, answers, strict=True):
        assert answer["status"] == "Healthy" or answer["message"], state.title


def test_a_resource_without_a_status_is_in_progress(tmp_path: Path) -> None:
    body = fine_tune_job()
    (answer,) = run_script(tmp_path, SETTINGS[f"resource.customizations.health.{GROUP}_FineTuneJob"], [body])
    assert answer["status"] == "Progressing"


def test_a_job_is_suspended_and_resumed(tmp_path: Path) -> None:
    body = fine_tune_job()
    assert enabled(tmp_path, body) == {"suspend"}
    (suspended,) = run_script(tmp_path, script_of("FineTuneJob", "suspend"), [body])
    assert suspended["spec"]["suspend"] is True
    assert enabled(tmp_path, suspended) == {"resume"}
    (resumed,) = run_script(tmp_path, script_of("FineTuneJob", "resume"), [suspended])
    assert resumed["spec"]["suspend"] is False
    assert enabled(tmp_path, body | {"status": {"phase": "Succeeded"}}) == set()


def test_actions_are_offered_where_they_apply(tmp_path: Path) -> None:
    world = canary()
    assert enabled(tmp_path, serving_body(world)) == {"pause", "promote", "abort"}
    world.ask("pause")
    assert enabled(tmp_path, serving_body(world)) == {"resume", "promote", "abort"}
    world.ask("promote")
    assert enabled(tmp_path, serving_body(world)) == {"undo"}
    world.ask("undo")
    assert enabled(tmp_path, serving_body(world)) == {"retry", "undo"}
    assert enabled(tmp_path, serving_body(settled(build_adapter("one")))) == set()


@pytest.mark.parametrize("verb", ["pause", "promote", "abort"])
def test_the_operator_does_what_argo_cd_asks_for(verb: str, tmp_path: Path) -> None:
    world = canary()
    (asked,) = run_script(tmp_path, script_of("AdapterDeployment", verb), [serving_body(world)])
    world.annotate(asked["metadata"]["annotations"][ACTION_ANNOTATION], "argocd-controller")
    world.settle()
    result = world.adapter()["actions"][0]
    assert (result["verb"], result["result"], result["by"]) == (verb, "Done", "Argo CD")
    assert result["manager"] == "argocd-controller"
    # Nothing else of the resource is changed.
    assert asked["spec"]["adapters"][0]["name"] == "expenses"


def test_every_verb_of_the_operator_has_an_action() -> None:
    names = [each["name"] for each in actions_of("AdapterDeployment")["definitions"]]
    assert names == [verb.value for verb in Verb]


def test_of_several_adapters_one_is_named(tmp_path: Path) -> None:
    others = [build_adapter("one", name=name) for name in ("expenses", "tickets")]
    world = settled(*others)
    for name in ("expenses", "tickets"):
        world.set_adapter(build_adapter("two", name=name))
    world.settle()
    body, script = serving_body(world), script_of("AdapterDeployment", "abort")
    (refused,) = run_script(tmp_path, script, [body])
    assert (
        "name the adapter in the parameter adapter; abort applies to: expenses, tickets" in refused["error"]
    )
    (asked,) = run_script(tmp_path, script, [body], {"adapter": "tickets"})
    assert json.loads(asked["metadata"]["annotations"][ACTION_ANNOTATION])["adapter"] == "tickets"
    (unknown,) = run_script(tmp_path, script, [body], {"adapter": "travel"})
    assert "spec.adapters has no adapter travel" in unknown["error"]
