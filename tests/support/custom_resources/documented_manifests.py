"""Manifests that the pages show, completed where they show a part."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from custom_resources.manifest_cases import load_good, read_documents

_ROOT = Path(__file__).parents[3]
_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: First line of a block with values of the chart.
_VALUES = "# values.yaml\n"
#: A digest of which the page shows the beginning.
_CUT_DIGEST = re.compile(r"(sha256[:-])([0-9a-f]*)…")
#: A path, which stands for a URI on a computer alone.
_PATH = re.compile(r"(?<=[ \"])\./")
#: Members of the YAML that pipelines have, which is no manifest.
_PIPELINES = ({"permissions", "steps"}, {"evaluation"})
#: Members of the spec of a FineTuneJob, by which a part of one is told from a part of an EvalRun.
_JOB_MEMBERS = {"dataset", "method", "search"}
#: The same for AdapterDeployments.
_SERVING_MEMBERS = {"access", "adapters", "engine", "replicas", "telemetry"}

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


def _texts() -> Iterator[tuple[str, str]]:
    """Texts of YAML, with their titles: the blocks of pages, and the manifest of pipelines."""
    for page in (_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))):
        for number, block in enumerate(_BLOCK.findall(page.read_text()), start=1):
            yield f"{page.stem} {number}", block
    yield "pipelines", (_ROOT / "examples" / "pipelines" / "eval.yaml").read_text()


def _manifests() -> Iterator[DocumentedManifest]:
    for title, text in _texts():
        if text.startswith(_VALUES):
            continue
        text = _CUT_DIGEST.sub(lambda found: found[1] + found[2].ljust(64, "0"), text)
        text, paths = _PATH.subn("pvc://data/", text)
        documents = read_documents(text)
        for number, shown in enumerate(documents, start=1):
            if set(shown) not in _PIPELINES:
                place = title if len(documents) == 1 else f"{title}.{number}"
                # The command writes into a folder of its own; in a cluster the report needs a place.
                output = {"output": {"uri": "pvc://reports"}} if paths else {}
                yield DocumentedManifest(place, _complete(output | shown))


def _complete(shown: dict[str, Any]) -> dict[str, Any]:
    if "kind" in shown:
        return shown
    spec = shown["spec"] if set(shown) == {"spec"} else shown
    if _JOB_MEMBERS & set(spec):
        job = load_good("finetunejob-minimal")
        return job | {"spec": job["spec"] | spec}
    if _SERVING_MEMBERS & set(spec):
        deployment = load_good("adapterdeployment")
        return deployment | {"spec": deployment["spec"] | spec}
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
#: Values of the chart that pages show, by their place.
DOCUMENTED_VALUES = {title: text for title, text in _texts() if text.startswith(_VALUES)}
#: Those of Tunesmith's own kinds.
DOCUMENTED_RESOURCES = [
    shown for shown in DOCUMENTED if shown.body["apiVersion"].startswith("tunesmith.dev/")
]
