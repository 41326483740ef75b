"""Images for GPUs, built and imported without one: what fails before a kernel runs fails here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith_images import buildah
from tunesmith_images.build import build_images
from tunesmith_images.catalog import SERVING_GPU, TRAINER_CUDA_12, Image
from tunesmith_images.container import ContainerImage, Mount, Process, open_image

# The wheels alone are five gigabytes, and an image takes six minutes.
pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

_IMPORT_ENGINE = """
import ctypes, json, os, shutil, sys
import flashinfer, torch, torchaudio, torchvision, vllm
from vllm.platforms import current_platform
from vllm.entrypoints.openai.api_server import build_app
ctypes.CDLL("libibverbs.so.1")
facts = {
    "vllm": vllm.__version__,
    "cuda": torch.version.cuda,
    "ninja": shutil.which("ninja"),
    "libraries": os.environ["LD_LIBRARY_PATH"],
}
json.dump(facts, open("/tmp/facts.json", "w"))
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[ContainerImage]:
    with _built(SERVING_GPU) as image:
        yield image
