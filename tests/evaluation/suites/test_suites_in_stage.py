"""Suites of all kinds in one run of the stage."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from stages.stage_world import RowBuilders, World

from tunesmith_data.failures import UserError

EXAMPLE = Path(__file__).parents[3] / "examples/evaluation-container/score.py"
TASK = {
    "task": "colors",
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "Color of {{thing}}?",
    "doc_to_target": "label",
    "doc_to_choice": ["blue", "green", "red"],
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def write_task(world: World) -> dict[str, Any]:
    """A task with its data on the claim."""
    folder = world.root / "pvc" / "data" / "colors"
    folder.mkdir(parents=True)
    (folder / "colors.yaml").write_text(yaml.safe_dump(TASK))
    rows = [{"thing": f"thing {number}", "label": number % 3} for number in range(6)]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {"task": "colors", "data": "pvc://data/colors", "include": "pvc://data/colors"}


def read_items(world: World, uri: str) -> list[dict[str, Any]]:
    path = world.root / "pvc" / uri.removeprefix("pvc://")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_all_kinds_in_one_run(world: World, make: RowBuilders) -> None:
    test = world.write_rows("test.jsonl", make.rows(4))
    gate = {"expect": "NotWorse", "margin": 0.1}
    config = world.evaluate_config(
        sides=[{"name": "same", "systemPrompt": "Sort."}, {"name": "bare"}],
        suites=[
            {
                "name": "own",
                "dataset": test,
                "metrics": [{"type": "ContainerScore"}, {"type": "ExactMatch"}],
                "container": {"image": "scorer:1", "command": [sys.executable, str(EXAMPLE)]},
                "maxNewTokens": 4,
            },
            {"name": "colors", "harness": write_task(world), "metrics": [{"type": "TaskScore"}]},
            {
                "name": "safety-harmless",
                "isSafety": True,
                "metrics": [{"type": "SafeAnswer"}],
                "sliceColumns": ["category"],
                "limit": 3,
                "maxNewTokens": 4,
            },
        ],
        gates=[
            {"suite": "colors", "metric": "TaskScore", **gate},
            {"suite": "safety-harmless", "metric": "SafeAnswer", **gate},
        ],
    )
    evaluation = world.evaluate(config).evaluation
    found = {(result.suite, result.metric): result.items for result in evaluation.results}
    assert found == {
        ("own", "ContainerScore"): 4,
        ("own", "ExactMatch"): 4,
        ("colors", "TaskScore"): 6,
        ("safety-harmless", "SafeAnswer"): 3,
    }
    assert [(counts.items, counts.broken) for counts in evaluation.suites] == [(4, 0), (6, 0), (3, 0)]
    items = read_items(world, evaluation.details.uri)
    colors = [item for item in items if item["suite"] == "colors"]
    assert {len(item["answers"]["bare"]) for item in colors} == {3}
    assert all("TaskScore" in item["answers"]["bare"][0]["scores"] for item in colors)
    assert all(
        "ContainerScore" in item["answers"]["same"][0]["scores"] for item in items if item["suite"] == "own"
    )


def test_container_without_folders_or_command_is_refused(world: World, make: RowBuilders) -> None:
    test = world.write_rows("test.jsonl", make.rows(2))
    suite = {
        "name": "own",
        "dataset": test,
        "metrics": [{"type": "ContainerScore"}],
        "container": {"image": "scorer:1"},
        "maxNewTokens": 2,
    }
    config = world.evaluate_config(sides=[{"name": "one"}, {"name": "other"}], suites=[suite])
    with pytest.raises(UserError, match="suite own: its container does not run on this machine"):
        world.evaluate(config)


def test_choices_can_not_be_asked_behind_an_endpoint(world: World) -> None:
    suite = {"name": "colors", "harness": write_task(world), "metrics": [{"type": "TaskScore"}]}
    endpoint = {"url": "http://127.0.0.1:9/v1", "model": "hosted"}
    config = world.evaluate_config(
        sides=[{"name": "hosted", "endpoint": endpoint}, {"name": "bare"}], suites=[suite]
    )
    with pytest.raises(UserError, match="which side hosted, an endpoint, does not tell"):
        world.evaluate(config)
