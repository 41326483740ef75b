"""The agent with compiled modules, as its image has it: for tests and benchmarks, kept in the cache by content."""

import os
import shutil
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from .build import remember
from .cache import REPOSITORY, cache_dir, content_key, locked
from .run import run
from .venvs import environment_path, make_environment

_AGENT = "serving-image"
#: Packages whose types the compiled modules use.
_TYPES = ("contract/src", "storage/src")
_INPUTS = (f"{_AGENT}/pyproject.toml", f"{_AGENT}/hatch_build.py", f"{_AGENT}/src", *_TYPES)


def compiled_modules() -> list[str]:
    """Names of the modules that are compiled."""
    project = tomllib.loads((REPOSITORY / _AGENT / "pyproject.toml").read_text())
    hook = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
    return [path.removesuffix(".py").replace("/", ".") for path in hook["modules"]]


def make_compiled_agent() -> Path:
    """Folder that holds the package ``tunesmith_agent`` with its compiled modules; made unless it is there.

    Raises:
        BuildError: it can't be compiled.
    """
    folder = cache_dir() / "compiled-agent"
    key = content_key(REPOSITORY, _INPUTS, environment_path("dev").name)
    with locked(cache_dir() / "compiled-agent.lock"):
        if not (folder / key).exists():
            folder.mkdir(exist_ok=True)
            with TemporaryDirectory(dir=folder) as temporary:
                _compile(Path(temporary))
                os.rename(Path(temporary) / "packages", folder / key)
        for old in remember(folder / "used.json", key):
            shutil.rmtree(folder / old, ignore_errors=True)
    return folder / key


def _compile(folder: Path) -> None:
    python = make_environment("dev") / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    environment = {
        **os.environ,
        "HATCH_BUILD_HOOKS_ENABLE": "1",
        "MYPYPATH": os.pathsep.join(str(REPOSITORY / path) for path in _TYPES),
    }
    options = ["--no-deps", "--no-index"]
    wheel = [*pip, "wheel", *options, "--no-build-isolation", f"--wheel-dir={folder}"]
    run([*wheel, REPOSITORY / _AGENT], env=environment)
    [built] = folder.glob("*.whl")
    run([*pip, "install", *options, f"--target={folder / 'packages'}", built])
