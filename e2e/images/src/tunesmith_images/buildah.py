"""Image builds with buildah without Docker, from the project's Dockerfiles."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from . import base
from .cache import REPOSITORY, cache_dir
from .catalog import REGISTRY, Image
from .layout import is_complete, make_layout, remove_image
from .run import BuildError, Stages, output, run
from .system import ensure_programs
from .wheels import download_wheels, write_pip_config

BASE_RECIPE = base.RECIPE
_RUN_ROOT = "/run/tunesmith-images"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def layout_path() -> Path:
    """The OCI layout that holds every built image."""
    return cache_dir() / "images" / "oci"


def exists(image: Image, ref: str) -> bool:
    """True if the image is built, and in the layout if pods run it."""
    return is_complete(layout_path(), ref) if image.is_run else _is_stored(ref)


def build(image: Image, ref: str, parents: dict[str, str], stages: Stages) -> None:
    """Build `image` as `ref` on its parents (build argument to ref), and export it into the layout.

    Raises:
        BuildError: a step failed, or we are not root.
    """
    if os.geteuid() != 0:
        raise BuildError("building images without Docker needs root; start it as root, or install Docker")
    with stages.stage("Debian packages"):
        ensure_programs()
    with stages.stage("base image"):
        base_ref = _ensure_base()
    with stages.stage(f"{image.name}: wheels"):
        download(image)
    arguments = {"BASE_IMAGE": base_ref, **parents, **image.arguments}
    with stages.stage(f"{image.name}: build"):
        _bud(image, ref, arguments)
    if image.is_run:
        with stages.stage(f"{image.name}: export"):
            _export(ref)


def download(image: Image) -> None:
    """Fetch the wheels that the image installs, unless they are there."""
    for name in image.inputs:
        if Path(name).suffix == ".txt":
            download_wheels(REPOSITORY / name)


def remove(ref: str) -> None:
    """Forget the image, and the layers that only it had."""
    remove_image(layout_path(), ref)
    if _is_stored(ref):
        run([*buildah_command("rmi"), ref])
        run([*buildah_command("rmi"), "--prune"])


def buildah_command(verb: str, *arguments: str) -> list[str | Path]:
    """Command line of buildah with a storage folder of its own, separate from that of the machine."""
    return ["buildah", "--root", _storage_path(), "--runroot", _RUN_ROOT, verb, *arguments]


def _storage_path() -> Path:
    return cache_dir() / "images" / "storage"


def _is_stored(ref: str) -> bool:
    return bool(output([*buildah_command("images"), "--quiet", ref]))


def _export(ref: str) -> None:
    """Copy the image into the layout, with its layers as they are.

    Compressed ones would be half as large, and made anew in minutes for each change of the source: skopeo
    recognizes a layer that is there by the digest of its uncompressed bytes alone.
    """
    make_layout(layout_path())
    source = f"containers-storage:[overlay@{_storage_path()}+{_RUN_ROOT}]{ref}"
    copy = ["skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers"]
    run([*copy, source, f"oci:{layout_path()}:{ref}"], env=_environment())


def _bud(image: Image, ref: str, arguments: dict[str, str]) -> None:
    settings = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    # The wheels, and how pip finds them: nothing is downloaded inside a build but by apt.
    volumes = [
        f"--volume={cache_dir() / 'wheels'}:/wheels:ro",
        f"--volume={write_pip_config()}:/etc/pip.conf:ro",
    ]
    options = ["--isolation=chroot", "--network=host", "--layers", "--quiet", *settings, *volumes]
    run(
        [
            *buildah_command("bud"),
            *options,
            f"--file={REPOSITORY / image.dockerfile}",
            f"--tag={ref}",
            REPOSITORY / image.context,
        ],
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    """Large temporary files go where the room is."""
    temporary = cache_dir() / "images" / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {**os.environ, "TMPDIR": str(temporary)}


def _ensure_base() -> str:
    ref = f"{REGISTRY}/base:{base.key()}"
    if not _is_stored(ref):
        with _scratch() as (container, root):
            base.make_root(root)
            run([*buildah_command("add"), "--quiet", container, root, "/"])
            run([*buildah_command("config"), f"--env=PATH={_PATH}", container])
            run([*buildah_command("commit"), "--quiet", container, ref])
    return ref


@contextmanager
def _scratch() -> Iterator[tuple[str, Path]]:
    """An empty container and an empty folder, both gone afterwards."""
    folder = cache_dir() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    container = output([*buildah_command("from"), "scratch"])
    if not container:
        raise BuildError("buildah cannot make a container; see what `buildah from scratch` says")
    try:
        with TemporaryDirectory(dir=folder) as name:
            root = Path(name) / "root"
            root.mkdir()
            yield container, root
    finally:
        run([*buildah_command("rm"), container])
