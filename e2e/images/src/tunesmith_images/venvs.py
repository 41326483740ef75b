"""Virtual environments for tests: pinned third-party packages, shared by all checkouts with the same pins."""

import shutil
from pathlib import Path

from .cache import REPOSITORY, cache_dir, content_key, locked
from .run import run
from .wheels import PYTHON_VERSION, download_wheels, find_python

REQUIREMENTS = {
    "torch": "images/torch/requirements.txt",
    "dev": "requirements-dev.txt",
    "data": "data/requirements.txt",
    "trainer": "trainer-image/requirements-dev.txt",
    "engine": "serving-image/requirements-engine.txt",
    "router": "bench/requirements-router.txt",
    "litellm": "bench/requirements-litellm.txt",
    "argilla": "tests/support/argilla_server/requirements.txt",
    "azurite": "tests/support/azurite_server/requirements.txt",
    "near": "bench/requirements-near.txt",
}
# Environments that see the packages of another one, which is large.
PARENTS = {"trainer": "torch", "engine": "torch"}


def environment_path(name: str) -> Path:
    """Folder of the environment `name` for this checkout's pins; it may not exist yet."""
    requirements = [REQUIREMENTS[name], *(REQUIREMENTS[parent] for parent in _parents(name))]
    key = content_key(REPOSITORY, requirements, "venv", f"python{PYTHON_VERSION}")
    return cache_dir() / "venvs" / f"{name}-{key}"


def make_environment(name: str) -> Path:
    """The environment `name`, made unless it is complete; return its path."""
    path = environment_path(name)
    parents = [make_environment(parent) for parent in _parents(name)]
    done = path / ".complete"
    with locked(cache_dir() / "venvs" / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(path, ignore_errors=True)
            run([find_python(), "-m", "venv", path])
            for parent in parents:
                (_packages(path) / f"{parent.name}.pth").write_text(f"{_packages(parent)}\n")
            # Only the pins that the environment does not see already.
            requirements = REPOSITORY / REQUIREMENTS[name]
            options = ["--quiet", "--no-deps", "--require-hashes", "--no-index"]
            options += [f"--find-links={download_wheels(requirements)}", f"--requirement={requirements}"]
            run([path / "bin" / "python", "-m", "pip", "install", *options])
            done.touch()
    return path


def _parents(name: str) -> list[str]:
    return [PARENTS[name]] if name in PARENTS else []


def _packages(environment: Path) -> Path:
    return environment / "lib" / f"python{PYTHON_VERSION}" / "site-packages"
