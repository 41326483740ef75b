"""Virtual environments for tests: third-party pins only, shared by every checkout with the same pins."""

import shutil
from pathlib import Path

from .cache import REPOSITORY, cache_dir, content_key, locked
from .run import run
from .wheels import download_wheels, find_python

REQUIREMENTS = {
    "dev": "requirements-dev.txt",
    "trainer": "trainer-image/requirements-dev.txt",
    "engine": "serving-image/requirements-engine.txt",
    "router": "bench/requirements-router.txt",
}


def environment_path(name: str) -> Path:
    """Where the environment `name` of this checkout's pins is, or will be."""
    key = content_key(REPOSITORY, [REQUIREMENTS[name]], "venv", find_python())
    return cache_dir() / "venvs" / f"{name}-{key}"


def make_environment(name: str) -> Path:
    """The environment `name`, made unless it is complete; return its path."""
    path = environment_path(name)
    done = path / ".complete"
    with locked(cache_dir() / "venvs" / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(path, ignore_errors=True)
            requirements = REPOSITORY / REQUIREMENTS[name]
            wheels = download_wheels(requirements)
            run([find_python(), "-m", "venv", path])
            options = ["--quiet", "--no-deps", "--require-hashes", "--no-index", f"--find-links={wheels}"]
            run([path / "bin" / "python", "-m", "pip", "install", *options, f"--requirement={requirements}"])
            done.touch()
    return path
