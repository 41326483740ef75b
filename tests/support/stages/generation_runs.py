"""Runs of the generate stage in a small world."""

import json
from pathlib import Path
from typing import Any

from tunesmith_contract.run_config import GenerateConfig
from tunesmith_data.endpoints.client import KEY_FILE
from tunesmith_data.generate.rate_limiter import Clock
from tunesmith_data.generate.stage import generate
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.workspace import Workspace

KEY = "sesame-open-1234"


def prompts(count: int) -> list[dict[str, Any]]:
    """Rows of prompts."""
    return [{"prompt": [{"role": "user", "content": f"turn {number} around"}]} for number in range(count)]


def journalled(folder: Path) -> set[str]:
    """The answers that a journal holds."""
    entries = [json.loads(line) for path in folder.iterdir() for line in path.read_text().splitlines()]
    return {entry["answer"] for entry in entries if "answer" in entry}


class Setting:
    """A world in which rows are generated."""

    def __init__(self, world: Any, secrets: Path) -> None:
        self.world = world
        world.storage.secrets = secrets
        for role in ("generator", "judge"):
            (secrets / role).mkdir(parents=True)
            (secrets / role / KEY_FILE).write_text(KEY)
        self.folder = world.output / "ns/uid"

    def config(self, url: str, rows: list[Any], task: str = "answers", **more: Any) -> GenerateConfig:
        """A run of the stage; what is not a field of it is one of its generation."""
        uri = self.world.write_rows("source.jsonl", rows)
        tasks = {
            "answers": {"prompts": uri},
            "paraphrases": {"rows": uri},
            "selfInstruct": {"seeds": uri, "rows": 10},
            "preferences": {"prompts": uri},
        }
        generation = {
            "endpoint": {"url": f"{url}/v1", "model": "large"},
            task: tasks[task] | more.pop(task, {}),
            "budget": {"calls": 1000},
            "concurrency": 4,
            **{
                name: more.pop(name)
                for name in list(more)
                if name not in ("heldOut", "baseModel", "workspace")
            },
        }
        owner = {"kind": "FineTuneJob", "namespace": "ns", "name": "run", "uid": "uid"}
        run = {"owner": owner, "generation": generation, "seed": 1, "output": "pvc://out", **more}
        return GenerateConfig.model_validate(run)

    def run(self, config: GenerateConfig, clock: Clock | None = None) -> Any:
        """Run the stage here; what it reports."""
        workspace = Workspace(self.world.storage, config)
        report = generate(config, self.world.storage, workspace, ProgressReporter({}), clock)
        assert report.generation
        return report.generation

    @property
    def rows(self) -> list[Any]:
        """What was made."""
        return [
            json.loads(line) for line in (self.folder / "generated/generated.jsonl").read_text().splitlines()
        ]

    @property
    def manifest(self) -> Any:
        """How it was made."""
        return json.loads((self.folder / "data-report/generation.json").read_text())
