"""Manifests that the pages on evaluation and search show, completed where they show a part."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from custom_resources.manifest_cases import load_good, merge

_DOCS = Path(__file__).parents[3] / "docs"
_PAGES = ("evaluation", "compare-models", "suites", "metrics", "reports", "search")
_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: A digest of which the page shows the beginning.
_CUT_DIGEST = re.compile(r"(sha256[:-])([0-9a-f]*)…")
#: Members of the YAML that pipelines have, which is no manifest.
_PIPELINES = ({"permissions", "steps"}, {"evaluation"})

_SPEC: dict[str, Any] = {
    "candidate": {"fineTuneJobRef": {"name": "tickets"}},
    "suites": [
        {
            "name": "tickets",
            "dataset": {"uri": "pvc://data/test.jsonl"},
            "metrics": [{"type": "ExactMatch"}],
        }
    ],
}


class DocumentedManifest(NamedTuple):
    """A manifest of a page, and where it is."""

    title: str
    body: dict[str, Any]


def _manifests() -> Iterator[DocumentedManifest]:
    for page in _PAGES:
        for number, block in enumerate(_BLOCK.findall((_DOCS / f"{page}.md").read_text()), start=1):
            text = _CUT_DIGEST.sub(lambda found: found[1] + found[2].ljust(64, "0"), block)
            # Paths stand for URIs on a computer alone.
            shown = yaml.safe_load(text.replace('"./', '"pvc://data/'))
            if set(shown) not in _PIPELINES:
                yield DocumentedManifest(f"{page} {number}", _complete(shown))


def _complete(shown: dict[str, Any]) -> dict[str, Any]:
    if "kind" in shown:
        return shown
    spec = shown["spec"] if set(shown) == {"spec"} else shown
    if "search" in spec:
        job = load_good("finetunejob-minimal")
        return job | {"spec": merge(job["spec"], spec)}
    if "candidate" in spec and "baseline" not in spec and "baseModel" not in spec:
        spec = {"baseModel": {"uri": "hf://org/base@main"}, **spec}
    spec = _SPEC | spec
    first = spec["suites"][0]
    gate = {"suite": first["name"], "metric": first["metrics"][0]["type"], "expect": "Better"}
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "EvalRun",
        "metadata": {"name": "documented", "namespace": "team"},
        "spec": {"gates": [gate], **spec},
    }


DOCUMENTED = list(_manifests())
