"""Generator of files from the API models: ``crds/*.yaml``, and the checks of the chart's admission policies.

``python -m tunesmith.crdgen [folder of CRDs] [folder of the chart's files]``
"""

import sys
from pathlib import Path

import yaml

from .api import KINDS, Resource, build_crd
from .api.admission import build_checks

_HEADER = (
    "# Generated from operator/src/tunesmith/api by `python -m tunesmith.crdgen`; edit the models instead.\n"
)


def render_crd(kind: type[Resource]) -> str:
    """CustomResourceDefinition of a kind as YAML."""
    return _HEADER + yaml.safe_dump(build_crd(kind), sort_keys=False, allow_unicode=True, width=110)


def write_crds(folder: Path) -> list[Path]:
    """Write one file per kind, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{kind.plural}.yaml" for kind in KINDS]
    for path, kind in zip(paths, KINDS, strict=True):
        path.write_text(render_crd(kind))
    return paths


def render_checks() -> str:
    """The checks of admission policies of all kinds as YAML."""
    return _HEADER + yaml.safe_dump(build_checks(), sort_keys=False, allow_unicode=True, width=110)


def write_checks(folder: Path) -> Path:
    """Write them into the folder of the chart's files, and return the path."""
    path = folder / "admission-checks.yaml"
    path.write_text(render_checks())
    return path


if __name__ == "__main__":
    crds, files = [*sys.argv[1:3], *("crds", "helm/tunesmith/files")[len(sys.argv[1:3]) :]]
    for written in (*write_crds(Path(crds)), write_checks(Path(files))):
        sys.stdout.write(f"{written}\n")
