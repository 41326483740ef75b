"""Base image without a registry: a minimal Debian by debootstrap."""

import shutil
from pathlib import Path

from .cache import content_key
from .run import BuildError, output, run

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-venv")
# What the image does without. Raise the number in RECIPE when this changes.
_REMOVED = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
)
RECIPE = f"debootstrap-1 {SUITE} {' '.join(PACKAGES)}"


def key() -> str:
    """The content key: of the recipe, not of the day's package versions."""
    return content_key(Path(), (), RECIPE)


def make_root(root: Path) -> None:
    """Fill the folder `root` with the base system.

    Raises:
        BuildError: debootstrap failed, or the machine names no Debian mirror.
    """
    run(["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, root, _mirror()])
    for name in _REMOVED:
        shutil.rmtree(root / name, ignore_errors=True)
    for directory in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
        (root / directory).mkdir(parents=True)
    # Devices belong to the runtime, and a copy of them could not be made by everyone.
    shutil.rmtree(root / "dev")
    (root / "dev").mkdir()


def _mirror() -> str:
    """The mirror that the machine's own apt uses for Debian's main archive."""
    targets = output(["apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT) $(LABEL)"])
    for line in targets.splitlines():
        uri, component, *label = line.split()
        if component == "main" and label == ["Debian"]:
            return uri
    raise BuildError("no Debian mirror is configured for apt; run apt-get update first, or use Docker")
