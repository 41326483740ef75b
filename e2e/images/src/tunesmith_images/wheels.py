"""Folder of downloaded wheels shared by environments and images."""

import hashlib
import sys
from pathlib import Path

from .cache import KEY_LENGTH, cache_dir, locked
from .run import run

PYTHON_VERSION = "3.11"


def download_wheels(requirements: Path) -> Path:
    """Fetch what `requirements` pins, unless done before; return the folder."""
    folder = cache_dir() / "wheels"
    key = hashlib.sha256(requirements.read_bytes()).hexdigest()[:KEY_LENGTH]
    done = folder / f".complete-{key}"
    if done.exists():
        return folder
    with locked(cache_dir() / "wheels.lock"):
        if not done.exists():
            pip = _tools_pip()
            folder.mkdir(exist_ok=True)
            options = [
                "--quiet",
                "--no-deps",
                "--require-hashes",
                f"--find-links={folder}",
                f"--dest={folder}",
            ]
            run([*pip, "download", *options, f"--requirement={requirements}"])
            done.touch()
    return folder


def write_pip_config() -> Path:
    """A pip configuration for builds, where the wheels are mounted at /wheels; return its path."""
    lines = ["[global]", "no-index = true", "find-links = /wheels", "disable-pip-version-check = true"]
    path = cache_dir() / "pip.conf"
    path.write_text("\n".join([*lines, "no-cache-dir = true", ""]))
    return path


def _tools_pip() -> list[str | Path]:
    """A pip of the Python that the images have: 3.11."""
    environment = cache_dir() / "venvs" / "tools"
    if not (environment / "bin" / "pip").exists():
        run([find_python(), "-m", "venv", environment])
    return [environment / "bin" / "python", "-m", "pip"]


def find_python() -> str:
    """A Python of the version that the pins are made for."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    return sys.executable if own == PYTHON_VERSION else f"python{PYTHON_VERSION}"
