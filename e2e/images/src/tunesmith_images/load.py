"""Loading of built images into a cluster's containerd."""

import subprocess
from collections.abc import Sequence

from .buildah import layout_path
from .cache import cache_dir, locked
from .layout import find_manifest, write_archive
from .run import BuildError, output


def load_image(ref: str, ctr: Sequence[str]) -> None:
    """Import the image into containerd, unless it is there; `ctr` is the command with address and namespace.

    Only blobs that containerd lacks travel, so that a change of source code moves a few kilobytes.

    Raises:
        BuildError: the image is not built, or the import failed.
    """
    if output([*ctr, "images", "list", "--quiet", f"name=={ref}"]):
        return
    present = output([*ctr, "content", "list", "--quiet"]).split()
    with locked(cache_dir() / "images.lock"):
        if find_manifest(layout_path(), ref) is None:
            raise BuildError(f"{ref} is not built; build it first")
        with subprocess.Popen([*ctr, "images", "import", "-"], stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            write_archive(layout_path(), ref, process.stdin, present)
            process.stdin.close()
    if process.returncode:
        raise BuildError(f"containerd did not take {ref}: exit code {process.returncode}")
