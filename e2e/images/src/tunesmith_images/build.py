"""Build of missing images in order of their dependencies, and removal of old ones."""

import json
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import buildah, docker
from .cache import REPOSITORY, cache_dir, locked
from .catalog import Image
from .run import BuildError, Stages

KEEP = 2


class Builder(Protocol):
    """Module that builds and keeps images: `buildah` or `docker`."""

    BASE_RECIPE: str

    def exists(self, image: Image, ref: str) -> bool: ...
    def build(self, image: Image, ref: str, parents: dict[str, str], stages: Stages) -> None: ...
    def download(self, image: Image) -> None: ...
    def remove(self, ref: str) -> None: ...


@dataclass(frozen=True)
class Built:
    """The names of built images, and the seconds that each stage took (none for what was there)."""

    refs: dict[str, str]
    seconds: dict[str, float]


def choose_builder() -> Builder:
    """Docker where its daemon answers, else buildah."""
    return docker if docker.is_available() else buildah


def build_images(images: Iterable[Image], builder: Builder | None = None) -> Built:
    """Build what is missing of `images` and of their parents, and meanwhile download what later ones need.

    Raises:
        BuildError: a build failed; what was complete before stays.
    """
    chosen = builder or choose_builder()
    wanted = list(images)
    stages = Stages()
    with locked(cache_dir() / "images.lock"), ThreadPoolExecutor(1) as beside:
        for image in _missing(wanted, chosen):
            # Whether it succeeds is left to the image's own build, which asks for the same files.
            beside.submit(chosen.download, image)
        try:
            refs = {image.name: _ensure(image, chosen, stages) for image in wanted}
        finally:
            beside.shutdown(cancel_futures=True)
    return Built(refs, stages.seconds)


def _missing(images: Iterable[Image], builder: Builder) -> list[Image]:
    """Images to build, parents first, without duplicates."""
    needed = {
        needed.name: needed
        for image in images
        if not builder.exists(image, image.ref(REPOSITORY, builder.BASE_RECIPE))
        for needed in (*image.parents.values(), image)
    }
    return [
        image
        for image in needed.values()
        if not builder.exists(image, image.ref(REPOSITORY, builder.BASE_RECIPE))
    ]


def _ensure(image: Image, builder: Builder, stages: Stages) -> str:
    parents = {argument: _ensure(parent, builder, stages) for argument, parent in image.parents.items()}
    ref = image.ref(REPOSITORY, builder.BASE_RECIPE)
    if not builder.exists(image, ref):
        builder.build(image, ref, parents, stages)
    for old in remember(cache_dir() / "images" / f"{image.name}.json", ref):
        _remove(old, builder)
    return ref


def _remove(ref: str, builder: Builder) -> None:
    """Remove an old image, unless a container uses it: a test may run in it, or was killed there."""
    try:
        builder.remove(ref)
    except BuildError as error:
        print(f"--- {ref} stays: {error}", file=sys.stderr, flush=True)


def remember(history: Path, ref: str, keep: int = KEEP) -> list[str]:
    """Note in the file `history` that `ref` was used last; return, and drop, those beyond `keep`."""
    recorded: list[str] = json.loads(history.read_text()) if history.exists() else []
    refs = [ref, *(other for other in recorded if other != ref)]
    if refs[:keep] != recorded:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.write_text(json.dumps(refs[:keep]))
    return refs[keep:]
