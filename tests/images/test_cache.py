"""A build's key follows its content, and nothing else."""

import re
from dataclasses import replace
from pathlib import Path
from string import Template

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_images.cache import cache_dir, content_key, source_files
from tunesmith_images.catalog import (
    IMAGES,
    OPERATOR,
    SERVING,
    SERVING_GPU,
    SERVING_GPU_CUDA_12,
    TORCH,
    TORCH_CUDA_12,
    TRAINER,
    TRAINER_CUDA_12,
    Image,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "src" / "__pycache__").mkdir(parents=True)
    (tmp_path / "src" / "a.py").write_text("a")
    (tmp_path / "src" / "b.py").write_text("b")
    (tmp_path / "src" / "__pycache__" / "a.pyc").write_text("generated")
    return tmp_path


def test_generated_files_do_not_count(tree: Path) -> None:
    before = content_key(tree, ["src"])
    (tree / "src" / "__pycache__" / "b.pyc").write_text("more")
    (tree / "src" / "x.egg-info").mkdir()
    (tree / "src" / "x.egg-info" / "PKG-INFO").write_text("name")
    assert content_key(tree, ["src"]) == before
    assert source_files(tree, ["src"]) == [tree / "src" / "a.py", tree / "src" / "b.py"]


def test_bytes_names_and_executable_bits_count(tree: Path) -> None:
    keys = {content_key(tree, ["src"])}
    (tree / "src" / "a.py").write_text("changed")
    keys.add(content_key(tree, ["src"]))
    (tree / "src" / "a.py").rename(tree / "src" / "c.py")
    keys.add(content_key(tree, ["src"]))
    (tree / "src" / "c.py").chmod(0o755)
    keys.add(content_key(tree, ["src"]))
    assert len(keys) == 4


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_recipes_never_run_into_each_other(one: list[str], other: list[str]) -> None:
    assert (content_key(Path(), (), *one) == content_key(Path(), (), *other)) == (one == other)


def test_a_missing_input_is_named(tree: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        content_key(tree, ["nothing.txt"])


def test_a_parent_changes_its_children(tree: Path) -> None:
    for name in ("Dockerfile", ".dockerignore", "pins.txt"):
        (tree / name).write_text(name)
    parent = Image("parent", "Dockerfile", ("pins.txt",))
    child = Image("child", "Dockerfile", ("src",), {"PARENT": parent})
    before = child.key(tree, "base")
    (tree / "pins.txt").write_text("newer")
    assert child.key(tree, "base") != before
    assert parent.key(tree, "base") != parent.key(tree, "other base")


@pytest.mark.parametrize("image", [TORCH, TORCH_CUDA_12, *IMAGES.values()], ids=lambda image: image.name)
def test_each_dockerfile_copies_only_what_its_key_covers(image: Image) -> None:
    lines = (ROOT / image.dockerfile).read_text().splitlines()
    defaults = dict(line.removeprefix("ARG ").split("=", 1) for line in lines if line.startswith("ARG "))
    assert image.arguments.keys() <= defaults.keys()
    for line in lines:
        # What comes from an earlier stage was made of what that stage copies.
        if line.startswith("COPY ") and not line.startswith("COPY --from="):
            source = Template(line.split()[1]).substitute(defaults | image.arguments)
            assert any(given == source or given.startswith(f"{source}/") for given in image.inputs), line


def test_a_build_argument_changes_the_key(tree: Path) -> None:
    for name in ("Dockerfile", ".dockerignore"):
        (tree / name).write_text(name)
    plain = Image("image", "Dockerfile", ("src",))
    keys = {
        replace(plain, arguments=arguments).key(tree, "base")
        for arguments in ({}, {"PINS": "a"}, {"PINS": "b"}, {"OTHER": "a"})
    }
    assert len(keys) == 4


def _torch_pins(path: str) -> dict[str, str]:
    """Version by package of what comes with torch; one environment must hold one of each."""
    lines = (ROOT / path).read_text().splitlines()
    pairs = [
        line.split(" ")[0].split("==")
        for line in lines
        if line.startswith(("torch==", "triton==", "nvidia-"))
    ]
    return {name.partition("[")[0]: version for name, version in pairs}


@pytest.mark.parametrize(
    ("base", "children"),
    [
        (
            "images/torch/requirements.txt",
            [
                "trainer-image/requirements.txt",
                "serving-image/requirements-engine.txt",
                "serving-image/requirements-engine-gpu.txt",
            ],
        ),
        (
            "images/torch/requirements-cuda12.txt",
            ["trainer-image/requirements-cuda12.txt", "serving-image/requirements-engine-gpu-cuda12.txt"],
        ),
    ],
)
def test_what_is_installed_on_the_base_image_keeps_its_torch(base: str, children: list[str]) -> None:
    shared = _torch_pins(base)
    for child in children:
        assert _torch_pins(child).items() >= shared.items(), child


def test_both_trainers_differ_in_cuda_alone() -> None:
    def pins(path: str) -> dict[str, str]:
        lines = (ROOT / path).read_text().splitlines()
        return dict(line.split(" ")[0].split("==") for line in lines if re.match(r"[a-z0-9]\S*==", line))

    newer, older = pins("trainer-image/requirements.txt"), pins("trainer-image/requirements-cuda12.txt")
    different = {name for name in newer.keys() | older.keys() if newer.get(name) != older.get(name)}
    assert {name for name in different if not name.startswith(("nvidia-", "cuda-"))} == {"torch", "triton"}
    assert older["nvidia-cuda-runtime-cu12"].startswith("12.")


def test_only_images_with_torch_have_a_parent() -> None:
    assert OPERATOR.parents == {}
    assert TRAINER.parents == SERVING.parents == SERVING_GPU.parents == {"TORCH_BASE_IMAGE": TORCH}
    assert TRAINER_CUDA_12.parents == SERVING_GPU_CUDA_12.parents == {"TORCH_BASE_IMAGE": TORCH_CUDA_12}


def test_the_cache_is_outside_the_work_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TUNESMITH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "tunesmith"
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("**/requirements*.txt")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_pins_have_hashes_and_name_no_index(path: Path) -> None:
    text = path.read_text()
    assert "==" in text
    assert "--hash=sha256:" in text
    assert not any(word in text for word in ("://", "--index", "--find-links", "--trusted-host", " file:"))
