"""Serving images as an engine's container starts them, on a machine without a GPU."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from simulation.serving_world import ENVIRONMENT, World, build_adapter
from trainer_image.image_pods import USER

from tunesmith.manifests.engine_container import MODEL_CACHE
from tunesmith.manifests.serving_config_maps import ServingInputs
from tunesmith.manifests.serving_deployment import build_serving_deployment
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_images import buildah
from tunesmith_images.build import build_images
from tunesmith_images.catalog import SERVING, SERVING_GPU, Image
from tunesmith_images.compiled_agent import compiled_modules
from tunesmith_images.container import ContainerImage, Mount, Process, open_image

#: Imports what an engine on GPUs imports, and prints as JSON what it finds in its environment.
_FACTS = """
import ctypes, json, os, shutil
from importlib.util import find_spec
from tunesmith_engine.start import engine_environment
os.environ.update(engine_environment(1, os.environ))
import torch, torchaudio, torchvision, vllm
from vllm.entrypoints.openai.api_server import build_app
ctypes.CDLL("libibverbs.so.1")
print(json.dumps({
    "vllm": vllm.__version__,
    "cuda": torch.version.cuda,
    "ninja": shutil.which("ninja"),
    "libraries": os.environ["LD_LIBRARY_PATH"],
    "sampler": os.environ["VLLM_USE_FLASHINFER_SAMPLER"],
    "flashinfer": find_spec("flashinfer") is not None,
}))
"""

#: Prints as JSON the files that modules of the agent are imported from, and whether their compiler is there.
_AGENT_FACTS = """
import json, sys
from importlib import import_module
from importlib.util import find_spec
print(json.dumps([[import_module(name).__file__ for name in sys.argv[1:]], find_spec("mypyc") is not None]))
"""


@contextmanager
def built(image: Image) -> Iterator[ContainerImage]:
    [ref] = build_images([image], buildah).refs.values()
    with open_image(ref) as opened:
        yield opened


@pytest.fixture(scope="module")
def cpu_image() -> Iterator[ContainerImage]:
    with built(SERVING) as image:
        yield image


@pytest.fixture(scope="module")
def gpu_image() -> Iterator[ContainerImage]:
    with built(SERVING_GPU) as image:
        yield image


def run_engine(image: ContainerImage, folder: Path, gpus: int, *command: str) -> tuple[int, str]:
    """Exit code and output of a command in the engine's container of a pod with so many GPUs."""
    deployment = World(build_adapter("one"), engine={"gpus": gpus}).resource
    pod = build_serving_deployment(deployment, ServingInputs(1, "", "serving"), ENVIRONMENT)["spec"][
        "template"
    ]["spec"]
    engine = pod["initContainers"][0]
    variables = {variable["name"]: variable["value"] for variable in engine["env"] if "value" in variable}
    volumes = [
        Mount(folder / name, path, writable=True) for name, path in (("tmp", "/tmp"), ("cache", MODEL_CACHE))
    ]
    for volume in volumes:
        volume.source.mkdir()
        volume.source.chmod(0o777)
    log = folder / "log"
    process = Process(command or [*engine["command"], *engine["args"]], volumes, variables, user=USER)
    code = image.run(process, log, 600)
    return code, log.read_text(errors="replace")


def test_an_image_for_cpus_says_that_it_has_no_use_for_gpus(
    cpu_image: ContainerImage, tmp_path: Path
) -> None:
    code, output = run_engine(cpu_image, tmp_path, 1)
    assert code == ExitCode.USER_ERROR, output
    assert output.splitlines()[-1].startswith("WrongImage: engine.gpus is 1")


def test_the_agent_is_compiled(cpu_image: ContainerImage, tmp_path: Path) -> None:
    python = ("/opt/agent/bin/python", "-c", _AGENT_FACTS)
    code, output = run_engine(cpu_image, tmp_path, 0, *python, *compiled_modules())
    assert code == 0, output
    files, has_compiler = json.loads(output.splitlines()[-1])
    assert all(file.endswith(".so") for file in files), files
    assert not has_compiler


@pytest.mark.long
@pytest.mark.timeout(3600)
class TestGPUImage:
    """Six minutes for the image, and gigabytes of wheels before."""

    def test_all_modules_are_imported(self, gpu_image: ContainerImage, tmp_path: Path) -> None:
        code, output = run_engine(gpu_image, tmp_path, 1, "/opt/venv/bin/python", "-c", _FACTS)
        assert code == 0, output
        facts = json.loads(output.splitlines()[-1])
        assert facts["vllm"].startswith("0.32.0")
        assert facts["cuda"].startswith("13.")
        assert facts["ninja"] == "/opt/venv/bin/ninja"
        assert "/usr/local/nvidia/lib64" in facts["libraries"].split(":")
        assert facts["sampler"] == "0"
        assert not facts["flashinfer"], "its kernels need a CUDA compiler"

    def test_a_node_without_gpus_is_named(self, gpu_image: ContainerImage, tmp_path: Path) -> None:
        code, output = run_engine(gpu_image, tmp_path, 1)
        assert code == ExitCode.INFRASTRUCTURE, output
        assert output.splitlines()[-1].startswith("NoGPU: the run asks for 1 GPU, and torch can use 0")

    def test_it_does_not_serve_on_cpus(self, gpu_image: ContainerImage, tmp_path: Path) -> None:
        code, output = run_engine(gpu_image, tmp_path, 0)
        assert code == ExitCode.USER_ERROR, output
        assert output.splitlines()[-1].startswith("WrongImage: engine.gpus is 0")
