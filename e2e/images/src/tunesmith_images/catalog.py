"""Catalog of images: Dockerfile, inputs, and cache key of each."""

from dataclasses import dataclass, field
from pathlib import Path

from .cache import content_key

REGISTRY = "tunesmith.local"


@dataclass(frozen=True)
class Image:
    """One of the project's images.

    Attributes:
        name: its name below the registry.
        dockerfile: relative to the repository.
        inputs: files and folders of the build context that it copies.
        parents: build argument to the image that it names.
        is_run: whether pods run it; else it is a parent only.
    """

    name: str
    dockerfile: str
    inputs: tuple[str, ...]
    parents: dict[str, "Image"] = field(default_factory=dict)
    is_run: bool = True

    def key(self, root: Path, base: str) -> str:
        """The content key, over everything that goes in; `base` stands for the base image."""
        parents = [f"{argument}={image.key(root, base)}" for argument, image in sorted(self.parents.items())]
        return content_key(root, (self.dockerfile, ".dockerignore", *self.inputs), self.name, base, *parents)

    def ref(self, root: Path, base: str) -> str:
        """The image's name, with its content key as the tag."""
        return f"{REGISTRY}/{self.name}:{self.key(root, base)}"


_CONTRACT = ("contract/pyproject.toml", "contract/src")
_STORAGE = ("storage/pyproject.toml", "storage/src")
_DATA = ("data/pyproject.toml", "data/src")

TORCH = Image("torch", "images/torch/Dockerfile", ("images/torch/requirements.txt",), is_run=False)
OPERATOR = Image(
    "operator",
    "operator/Dockerfile",
    ("operator/requirements.txt", "operator/pyproject.toml", "operator/src", *_CONTRACT),
)
TRAINER = Image(
    "trainer",
    "trainer-image/Dockerfile",
    (
        "trainer-image/requirements.txt",
        "trainer-image/pyproject.toml",
        "trainer-image/src",
        *_CONTRACT,
        *_STORAGE,
        *_DATA,
    ),
    {"TORCH_BASE_IMAGE": TORCH},
)
SERVING = Image(
    "serving",
    "serving-image/Dockerfile",
    (
        "serving-image/requirements.txt",
        "serving-image/requirements-engine.txt",
        "serving-image/engine.sh",
        "serving-image/pyproject.toml",
        "serving-image/src",
        *_CONTRACT,
        *_STORAGE,
    ),
    {"TORCH_BASE_IMAGE": TORCH},
)
IMAGES = {image.name: image for image in (OPERATOR, TRAINER, SERVING)}
