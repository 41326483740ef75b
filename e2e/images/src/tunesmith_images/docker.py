"""Image builds with Docker."""

from .cache import REPOSITORY
from .catalog import Image
from .run import Stages, output, run

# The public image that the Dockerfiles name is the base.
BASE_RECIPE = "public"


def is_available() -> bool:
    """True if a Docker daemon answers."""
    return bool(output(["docker", "version", "--format", "{{.Server.Version}}"]))


def exists(image: Image, ref: str) -> bool:
    """True if Docker has the image."""
    return _has(ref)


def _has(ref: str) -> bool:
    return bool(output(["docker", "image", "inspect", "--format", "{{.Id}}", ref]))


def build(image: Image, ref: str, parents: dict[str, str], stages: Stages) -> None:
    """Build `image` as `ref` on its parents (build argument to ref)."""
    settings = [f"--build-arg={name}={value}" for name, value in (parents | image.arguments).items()]
    with stages.stage(f"{image.name}: build"):
        dockerfile = REPOSITORY / image.dockerfile
        run(
            [
                "docker",
                "build",
                "--quiet",
                *settings,
                f"--file={dockerfile}",
                f"--tag={ref}",
                REPOSITORY / image.context,
            ]
        )


def download(image: Image) -> None:
    """Nothing to download: builds with Docker download their packages themselves."""


def remove(ref: str) -> None:
    """Forget the image."""
    if _has(ref):
        run(["docker", "image", "rm", ref])
