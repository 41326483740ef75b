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
        inputs: files and folders that it copies, relative to the repository.
        parents: build argument to the image that it names.
        arguments: build argument to its value, where it is not the Dockerfile's default.
        is_run: whether pods run it; else it is a parent only.
        context: folder of the build context, relative to the repository.
    """

    name: str
    dockerfile: str
    inputs: tuple[str, ...]
    parents: dict[str, "Image"] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    is_run: bool = True
    context: str = "."

    def key(self, root: Path, base: str) -> str:
        """The content key, over everything that goes in; `base` stands for the base image."""
        parents = [f"{argument}={image.key(root, base)}" for argument, image in sorted(self.parents.items())]
        arguments = [f"{name}={value}" for name, value in sorted(self.arguments.items())]
        recipe = (self.name, base, *parents, *arguments)
        return content_key(root, (self.dockerfile, ".dockerignore", *self.inputs), *recipe)

    def ref(self, root: Path, base: str) -> str:
        """The image's name, with its content key as the tag."""
        return f"{REGISTRY}/{self.name}:{self.key(root, base)}"


_CONTRACT = ("contract/pyproject.toml", "contract/src")
_STORAGE = ("storage/pyproject.toml", "storage/src")
_DATA = ("data/pyproject.toml", "data/src")
_EVALUATION = ("evaluation/pyproject.toml", "evaluation/src")
_GPU = ("gpu/pyproject.toml", "gpu/src")
_SEARCH = ("search/pyproject.toml", "search/src")

_ENGINE_PINS = "serving-image/requirements-engine.txt"
_ENGINE_GPU_PINS = "serving-image/requirements-engine-gpu.txt"
_ENGINE_GPU_CUDA_12_PINS = "serving-image/requirements-engine-gpu-cuda12.txt"
_TORCH_PINS = "images/torch/requirements.txt"
_TORCH_CUDA_12_PINS = "images/torch/requirements-cuda12.txt"
_TRAINER_PINS = "trainer-image/requirements.txt"
_TRAINER_CUDA_12_PINS = "trainer-image/requirements-cuda12.txt"
_TRAINER_SOURCES = (
    "trainer-image/pyproject.toml",
    "trainer-image/src",
    *_CONTRACT,
    *_STORAGE,
    *_DATA,
    *_EVALUATION,
    *_GPU,
    *_SEARCH,
)
_SERVING_SOURCES = (
    "serving-image/requirements.txt",
    "serving-image/requirements-compile.txt",
    "serving-image/engine.sh",
    "serving-image/pyproject.toml",
    "serving-image/hatch_build.py",
    "serving-image/src",
    "serving-image/engine",
    *_CONTRACT,
    *_STORAGE,
    *_GPU,
)

TORCH = Image("torch", "images/torch/Dockerfile", (_TORCH_PINS,), is_run=False)
OPERATOR = Image(
    "operator",
    "operator/Dockerfile",
    ("operator/requirements.txt", "operator/pyproject.toml", "operator/src", *_CONTRACT, *_SEARCH),
)
TRAINER = Image(
    "trainer", "trainer-image/Dockerfile", (_TRAINER_PINS, *_TRAINER_SOURCES), {"TORCH_BASE_IMAGE": TORCH}
)
SERVING = Image(
    "serving", "serving-image/Dockerfile", (_ENGINE_PINS, *_SERVING_SOURCES), {"TORCH_BASE_IMAGE": TORCH}
)
SERVING_GPU = Image(
    "serving-gpu",
    "serving-image/Dockerfile",
    (_ENGINE_GPU_PINS, *_SERVING_SOURCES),
    {"TORCH_BASE_IMAGE": TORCH},
    {"ENGINE_REQUIREMENTS": _ENGINE_GPU_PINS},
)
#: For drivers below 580: CUDA 12 runs from driver 525 on.
TORCH_CUDA_12 = Image(
    "torch-cuda12",
    "images/torch/Dockerfile",
    (_TORCH_CUDA_12_PINS,),
    arguments={"TORCH_REQUIREMENTS": _TORCH_CUDA_12_PINS},
    is_run=False,
)
TRAINER_CUDA_12 = Image(
    "trainer-cuda12",
    "trainer-image/Dockerfile",
    (_TRAINER_CUDA_12_PINS, *_TRAINER_SOURCES),
    {"TORCH_BASE_IMAGE": TORCH_CUDA_12},
    {"TRAINER_REQUIREMENTS": _TRAINER_CUDA_12_PINS},
)
SERVING_GPU_CUDA_12 = Image(
    "serving-gpu-cuda12",
    "serving-image/Dockerfile",
    (_ENGINE_GPU_CUDA_12_PINS, *_SERVING_SOURCES),
    {"TORCH_BASE_IMAGE": TORCH_CUDA_12},
    {"ENGINE_REQUIREMENTS": _ENGINE_GPU_CUDA_12_PINS},
)

#: The example of a container that scores answers; the end-to-end tests run it.
SCORER = Image(
    "scorer",
    "examples/evaluation-container/Dockerfile",
    ("examples/evaluation-container/score.py",),
    context="examples/evaluation-container",
)

#: What the demo and its cluster run, on CPUs.
CPU_IMAGES = (OPERATOR, TRAINER, SERVING)
#: What a cluster with GPUs runs; the trainer serves both.
RELEASED_IMAGES = (*CPU_IMAGES, SERVING_GPU)
IMAGES = {image.name: image for image in (*RELEASED_IMAGES, TRAINER_CUDA_12, SERVING_GPU_CUDA_12)}
