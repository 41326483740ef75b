"""Each EvalRun of the pages on evaluation is read by the command, where a cluster's sources are files."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from custom_resources.documented_manifests import DOCUMENTED, DocumentedManifest

from tunesmith_evaluation.command.manifest import build_run, read_manifest
from tunesmith_evaluation.command.places import Places

SHOWN = [shown for shown in DOCUMENTED if shown.body["kind"] == "EvalRun"]
ARTIFACT = {"uri": "pvc://artifacts/tuned", "digest": f"sha256:{'2b' * 32}"}


def _on_this_computer(side: dict[str, Any]) -> dict[str, Any]:
    """The side with an artifact in place of what only a cluster knows."""
    kept = {name: value for name, value in side.items() if not name.endswith("Ref")}
    return side if len(kept) == len(side) else ARTIFACT | kept


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.title)
def test_what_a_page_shows_is_read(shown: DocumentedManifest, tmp_path: Path) -> None:
    spec = dict(shown.body["spec"])
    for name in ("candidate", "baseline"):
        if name in spec:
            spec[name] = _on_this_computer(spec[name])
    spec.setdefault("baseModel", {"uri": "hf://org/base@main"})
    spec.setdefault("fewShotFrom", {"uri": "pvc://data/pool.jsonl"})
    text = yaml.safe_dump(shown.body | {"spec": spec})
    mounts = {}
    for claim, path in re.findall(r"pvc://([a-z]+)/([\w./-]+)", text):
        mounts[claim] = tmp_path / claim
        place = mounts[claim] / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("") if place.suffix else place.mkdir(exist_ok=True)
    (tmp_path / "eval.yaml").write_text(text)
    run = build_run(
        read_manifest(tmp_path / "eval.yaml"),
        Places(tmp_path, mounts),
        name="eval",
        output="pvc://this-computer/out",
        gpus=0,
        trained_on={},
    )
    written = {suite["name"] for suite in spec["suites"]}
    assert written <= {suite.name for suite in run.config.suites}
