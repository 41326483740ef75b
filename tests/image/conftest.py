"""Choice of the trainer image under test."""

import pytest

from tunesmith_images.catalog import TRAINER, TRAINER_CUDA_12, Image

_IMAGES = {image.name: image for image in (TRAINER, TRAINER_CUDA_12)}


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of these tests: which of the trainer images they try."""
    parser.addoption("--trainer-image", choices=sorted(_IMAGES), default=TRAINER.name)


@pytest.fixture(scope="session")
def trainer_image(request: pytest.FixtureRequest) -> Image:
    """The trainer image whose pods the tests run."""
    return _IMAGES[request.config.getoption("--trainer-image")]
