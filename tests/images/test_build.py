"""Images are built once, parents first; old ones are forgotten."""

import json
import threading
from pathlib import Path

import pytest

from tunesmith_images import build
from tunesmith_images.build import build_images, remember
from tunesmith_images.cache import cache_dir
from tunesmith_images.catalog import SERVING, TORCH, TRAINER, Image
from tunesmith_images.run import BuildError, Stages


class Recorder:
    """A builder that only remembers."""

    BASE_RECIPE = "base"

    def __init__(self) -> None:
        self.built: list[str] = []
        self.downloaded: list[str] = []
        self.present: set[str] = set()

    def exists(self, image: Image, ref: str) -> bool:
        return ref in self.present

    def build(self, image: Image, ref: str, parents: dict[str, str], stages: Stages) -> None:
        assert set(parents.values()) <= self.present
        self.built.append(image.name)
        self.present.add(ref)

    def download(self, image: Image) -> None:
        self.downloaded.append(image.name)

    def remove(self, ref: str) -> None:
        self.present.remove(ref)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path))


def test_the_shared_parent_is_built_first_and_once() -> None:
    builder = Recorder()
    refs = build_images([TRAINER, SERVING], builder).refs
    assert builder.built == ["torch", "trainer", "serving"]
    assert build_images([TRAINER, SERVING], builder).refs == refs
    assert len(builder.built) == 3


def test_what_is_missing_is_downloaded_while_others_are_built() -> None:
    fetched = threading.Event()

    class Waiting(Recorder):
        def download(self, image: Image) -> None:
            super().download(image)
            if image is SERVING:
                fetched.set()

        def build(self, image: Image, ref: str, parents: dict[str, str], stages: Stages) -> None:
            assert fetched.wait(10)
            super().build(image, ref, parents, stages)

    builder = Waiting()
    build_images([TRAINER, SERVING], builder)
    assert builder.downloaded == ["torch", "trainer", "serving"]
    build_images([TRAINER, SERVING], builder)
    assert len(builder.downloaded) == 3


def test_a_failed_download_is_left_to_the_build() -> None:
    class Offline(Recorder):
        def download(self, image: Image) -> None:
            raise BuildError("no network")

    assert build_images([TRAINER], Offline()).refs


def test_the_last_two_of_an_image_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Recorder()
    for base in ("first", "second", "third"):
        monkeypatch.setattr(builder, "BASE_RECIPE", base)
        build_images([TRAINER], builder)
    assert len(builder.present) == 2 * build.KEEP


def test_using_an_old_one_again_makes_it_the_newest(tmp_path: Path) -> None:
    history = tmp_path / "history.json"
    assert [remember(history, ref) for ref in ("a", "b", "a", "c")] == [[], [], [], ["b"]]


def test_a_failed_build_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Recorder()

    def fail(image: Image, ref: str, parents: dict[str, str], stages: Stages) -> None:
        raise BuildError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(builder, "build", fail)
        with pytest.raises(BuildError, match="no space left"):
            build_images([TRAINER], builder)
    assert build_images([TRAINER], builder).refs
    assert builder.built == ["torch", "trainer"]


def test_an_old_image_that_a_container_uses_stays(capsys: pytest.CaptureFixture[str]) -> None:
    class Used(Recorder):
        def remove(self, ref: str) -> None:
            raise BuildError("image is in use by a container")

    history = cache_dir() / "images" / "torch.json"
    for old in ("torch:1", "torch:2"):
        remember(history, old)
    refs = build_images([TORCH], Used()).refs
    assert json.loads(history.read_text()) == [refs["torch"], "torch:2"]
    assert "torch:1 stays: image is in use by a container" in capsys.readouterr().err
