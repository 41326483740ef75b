"""A build's key follows its content, and nothing else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_images.cache import cache_dir, content_key, source_files
from tunesmith_images.catalog import IMAGES, OPERATOR, SERVING, TORCH, TRAINER, Image

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


def test_each_dockerfile_copies_only_what_its_key_covers() -> None:
    for image in (TORCH, *IMAGES.values()):
        for line in (ROOT / image.dockerfile).read_text().splitlines():
            if line.startswith("COPY "):
                source = line.split()[1].replace(
                    "${ENGINE_REQUIREMENTS}", "serving-image/requirements-engine.txt"
                )
                assert any(given == source or given.startswith(f"{source}/") for given in image.inputs), line


def test_trainer_and_engine_share_one_torch() -> None:
    def pin(path: str) -> list[str]:
        lines = (ROOT / path).read_text().splitlines()
        return [line for line in lines if line.startswith(("torch==", "triton==", "nvidia-"))]

    shared = pin("images/torch/requirements.txt")
    assert shared == pin("trainer-image/requirements.txt") == pin("serving-image/requirements-engine.txt")
    assert OPERATOR.parents == {}
    assert TRAINER.parents == SERVING.parents


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
