"""Generator of ``crds/*.yaml`` from the API models: ``python -m tunesmith.crdgen [folder]``."""

import sys
from pathlib import Path

import yaml

from .api import KINDS, Resource, build_crd

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


if __name__ == "__main__":
    for written in write_crds(Path(sys.argv[1] if len(sys.argv) > 1 else "crds")):
        sys.stdout.write(f"{written}\n")
