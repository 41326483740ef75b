"""Serving image for GPUs, without one: what fails before the first kernel fails here."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from simulation.serving_world import ENVIRONMENT, World, build_adapter

from tunesmith.manifests.serving_deployment import build_serving_deployment
from tunesmith_images import buildah
from tunesmith_images.build import build_images
from tunesmith_images.catalog import SERVING, SERVING_GPU, Image
from tunesmith_images.container import ContainerImage, Mount, Process, open_image

# Six minutes for an image, and gigabytes of wheels before.
pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

#: Modules that an engine on GPUs imports, and what it looks for in its environment, as JSON.
_FACTS = """
import ctypes, json, os, shutil, flashinfer, torch, torchaudio, torchvision, vllm
from vllm.entrypoints.openai.api_server import build_app
ctypes.CDLL("libibverbs.so.1")
print(json.dumps({
    "vllm": vllm.__version__,
    "cuda": torch.version.cuda,
    "ninja": shutil.which("ninja"),
    "libraries": os.environ["LD_LIBRARY_PATH"],
    "flashinfer sampler": os.environ["VLLM_USE_FLASHINFER_SAMPLER"],
}))
"""


@contextmanager
def built(image: Image) -> Iterator[ContainerImage]:
    [ref] = build_images([image], buildah).refs.values()
    with open_image(ref) as opened:
        yield opened


@pytest.fixture(scope="module")
def gpu_image() -> Iterator[ContainerImage]:
    with built(SERVING_GPU) as image:
        yield image


def run_engine(image: ContainerImage, folder: Path, gpus: int, *command: str) -> tuple[int, str]:
    """Exit code and output of a command in the engine's container of a pod with so many GPUs."""
    deployment = World(build_adapter("one"), engine={"gpus": gpus}).resource
    pod = build_serving_deployment(deployment, "serving", ENVIRONMENT)["spec"]["template"]["spec"]
    variables = {
        variable["name"]: variable["value"]
        for variable in pod["initContainers"][0]["env"]
        if "value" in variable
    }
    scratch, log = folder / "tmp", folder / "log"
    scratch.mkdir()
    scratch.chmod(0o777)
    process = Process(command, [Mount(scratch, "/tmp", writable=True)], variables)
    code = image.run(process, log, 600)
    return code, log.read_text(errors="replace")


def test_engine_is_whole(gpu_image: ContainerImage, tmp_path: Path) -> None:
    code, output = run_engine(
        gpu_image, tmp_path, 1, "tunesmith-engine-environment", "python", "-c", _FACTS
    )
    assert code == 0, output
    facts = json.loads(output.splitlines()[-1])
    assert facts["vllm"].startswith("0.32.0")
    assert facts["cuda"].startswith("13.")
    assert facts["ninja"] == "/opt/venv/bin/ninja"
    assert "/usr/local/nvidia/lib64" in facts["libraries"].split(":")
    assert facts["flashinfer sampler"] == "0"
