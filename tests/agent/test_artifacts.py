"""Copies of artifacts on the pod's disk: what is copied, what is refused, and what makes room."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from agents.agent_harness import LINEAGE, Storage

from tunesmith_agent.artifacts.cache import ArtifactCache
from tunesmith_agent.artifacts.checks import EngineLimits, check_manifest
from tunesmith_agent.artifacts.errors import ArtifactError, ArtifactInvalid, ArtifactUnreadable
from tunesmith_agent.artifacts.sources import ArtifactSources
from tunesmith_contract.agent import Version
from tunesmith_contract.answer_formats import ChatFormat, ThinkingFormat, ToolFormat
from tunesmith_contract.artifact import ArtifactKind, Lineage, Manifest, Probe
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE

PROBE = Probe(token_ids=(1, 2, 3), prompt_length=1, base_log_prob=-2.0, tuned_log_prob=-1.0)
GIB = 1024**3


class Pod:
    """The disk of a pod: a claim and the cache of its agent."""

    def __init__(self, root: Path, limit: int = GIB) -> None:
        self.storage = Storage(root / "mnt")
        self.root = root / "cache"
        self.limit = limit
        self.restart()

    def restart(self) -> None:
        """A new life of the agent in the same pod."""
        self.cache = ArtifactCache(self.root, self.limit)
        self.cache.load()
        self.sources = ArtifactSources(
            self.cache, self.storage.root, self.root.parent / "secrets", EngineLimits()
        )

    def open(self, version: Version, on_bytes: Callable[[int], None] = lambda size: None) -> Path:
        return self.sources.open(version.uri, version.digest, on_bytes).folder

    def refusal(self, version: Version) -> ArtifactError:
        with pytest.raises(ArtifactError) as caught:
            self.open(version)
        return caught.value

    def size(self, version: Version) -> int:
        return sum(path.stat().st_size for path in self.storage.folder(version).iterdir())


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def test_a_mounted_artifact_is_copied_and_cannot_be_changed(pod: Pod) -> None:
    version = pod.storage.commit()
    (pod.storage.folder(version) / "unlisted.bin").write_bytes(b"x" * 1000)
    folder = pod.open(version)
    assert folder.is_relative_to(pod.root)
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", MANIFEST_FILE,
    }  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    assert folder.stat().st_mode & 0o777 == 0o555
    (pod.storage.folder(version) / "adapter_model.safetensors").write_bytes(b"exchang")
    assert (pod.open(version) / "adapter_model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", MANIFEST_FILE])
def test_symbolic_links_are_not_followed(pod: Pod, name: str, tmp_path: Path) -> None:
    version = pod.storage.commit()
    path = pod.storage.folder(version) / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    refusal = pod.refusal(version)
    assert (type(refusal), refusal.reason) == (ArtifactUnreadable, "SymbolicLink")
    assert "store the artifact's own files" in str(refusal)


def test_a_link_in_the_way_to_the_folder_is_not_followed(pod: Pod) -> None:
    version = pod.storage.commit()
    (pod.storage.root / "pvc/artifacts/latest").symlink_to(pod.storage.folder(version))
    assert pod.refusal(version.model_copy(update={"uri": "pvc://artifacts/latest"})).reason == "SymbolicLink"


def test_a_pipe_in_place_of_a_file_holds_nobody_up(pod: Pod) -> None:
    version = pod.storage.commit()
    path = pod.storage.folder(version) / "adapter_model.safetensors"
    path.unlink()
    os.mkfifo(path)
    assert pod.refusal(version).reason == "ArtifactDamaged"


def test_a_manifest_that_is_too_large_is_not_read(pod: Pod) -> None:
    version = pod.storage.commit()
    with (pod.storage.folder(version) / MANIFEST_FILE).open("r+b") as stream:
        stream.truncate(2 * GIB)
    refusal = pod.refusal(version)
    assert (type(refusal), refusal.reason) == (ArtifactInvalid, "InvalidManifest")
    assert "more than 1048576 bytes" in str(refusal)


def test_an_artifact_larger_than_the_cache_is_refused_before_it_is_copied(tmp_path: Path) -> None:
    pod = Pod(tmp_path, limit=100)
    version = pod.storage.commit()
    read: list[int] = []
    with pytest.raises(ArtifactInvalid, match=r"engine\.adapterCacheSize is 100: raise it") as caught:
        pod.open(version, read.append)
    assert caught.value.reason == "ArtifactTooLarge"
    assert read == [0]


def test_what_was_used_longest_ago_makes_room_and_what_is_pinned_never(tmp_path: Path) -> None:
    first, second, third = (Storage(tmp_path / "mnt", versions=number).commit() for number in range(3))
    pod = Pod(tmp_path)
    pod.limit = int(2.5 * pod.size(first))
    pod.restart()
    folders = [pod.open(first), pod.open(second)]
    pod.open(first)
    folders.append(pod.open(third))
    assert [folder.exists() for folder in folders] == [True, False, True]
    pod.cache.pin({first.digest, third.digest})
    refusal = pod.refusal(second)
    assert (type(refusal), refusal.reason) == (ArtifactUnreadable, "CacheFull")
    assert "raise engine.adapterCacheSize, or serve fewer adapters" in str(refusal)
    pod.cache.pin({third.digest})
    pod.open(second)
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert pod.cache.size <= pod.limit
    on_disk = sum(path.stat().st_size for path in pod.root.rglob("*") if path.is_file())
    assert on_disk <= pod.cache.size


def test_what_was_served_until_now_makes_room_last(tmp_path: Path) -> None:
    served, other = (Storage(tmp_path / "mnt", versions=number).commit() for number in range(2))
    pod = Pod(tmp_path)
    folder, later = pod.open(served), pod.open(other)
    pod.cache.pin({served.digest})
    pod.cache.pin(())
    pod.limit = int(2.5 * pod.size(served))
    pod.restart()
    pod.open(pod.storage.commit(note="third"))
    assert (folder.exists(), later.exists()) == (True, False)


def test_leftovers_of_a_former_life_are_used_and_make_room(tmp_path: Path) -> None:
    pod = Pod(tmp_path)
    first, second = pod.storage.commit(), pod.storage.commit()
    left = pod.open(first)
    (pod.root / "stray").mkdir()
    (pod.root / "stray/file").write_bytes(b"x")
    pod.limit = int(1.5 * pod.size(first))
    pod.restart()
    assert not (pod.root / "stray").exists()
    assert pod.sources.find_verified(first.digest) is None
    hashed: list[int] = []
    assert pod.open(first, hashed.append) == left
    assert sum(hashed) > 0
    pod.open(second)
    assert not left.exists()


def test_an_interrupted_copy_is_continued(pod: Pod) -> None:
    version = pod.storage.commit()

    class Stop(Exception):
        pass

    def stop(size: int) -> None:
        if any(pod.root.rglob("adapter_config.json")):
            raise Stop

    with pytest.raises(Stop):
        pod.open(version, stop)
    (part,) = pod.root.iterdir()
    inode = (part / "adapter_config.json").stat().st_ino
    pod.restart()
    assert (pod.open(version) / "adapter_config.json").stat().st_ino == inode
    assert len(list(pod.root.iterdir())) == 1


def test_a_copy_that_hangs_does_not_disturb_another_of_the_same_artifact(pod: Pod) -> None:
    version = pod.storage.commit()
    hanging, go_on = threading.Event(), threading.Event()

    def hang(size: int) -> None:
        if list(pod.root.iterdir()):
            hanging.set()
            go_on.wait(10)

    thread = threading.Thread(target=pod.open, args=(version, hang))
    thread.start()
    assert hanging.wait(10)
    folder = pod.open(version)
    go_on.set()
    thread.join()
    assert [path.name for path in pod.root.iterdir()] == [folder.name]
    assert (folder / "adapter_model.safetensors").read_bytes() == b"weights"


def manifest(**changes: object) -> Manifest:
    listed = [
        {"path": name, "size_bytes": 1, "sha256": sha256_digest(b"x")}
        for name in ("adapter_config.json", "adapter_model.safetensors")
    ]
    values = {"rank": 8, "target_modules": ("q",), "files": listed, "lineage": LINEAGE, "probes": (PROBE,)}
    return Manifest.model_validate(values | changes)


def trained_on(uri: str, revision: str) -> Lineage:
    return LINEAGE.model_copy(update={"base_model": uri, "base_model_revision": revision})


OLD, NEW = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("changes", "limits", "reason", "remedy"),
    [
        ({"rank": 64}, EngineLimits(max_rank=16), "RankTooHigh", "set engine.maxRank to 64 or more"),
        ({"kind": ArtifactKind.MODEL}, EngineLimits(), "NotAnAdapter", "train such an adapter"),
        ({"kind": ArtifactKind.DORA}, EngineLimits(), "NotAnAdapter", "train such an adapter"),
        ({"kind": ArtifactKind.REWARD_ADAPTER}, EngineLimits(), "NotAnAdapter", "LoRA or RSLoRA"),
        ({"probes": ()}, EngineLimits(), "NoProbes", "Train it"),
        ({"target_modules": ()}, EngineLimits(), "InvalidManifest", "use an artifact that a FineTuneJob made"),
        ({"rank": None}, EngineLimits(), "InvalidManifest", "use an artifact that a FineTuneJob made"),
        ({"files": ()}, EngineLimits(), "InvalidManifest", "does not list adapter_config.json"),
        (
            {"lineage": trained_on("hf://org/one", OLD)},
            EngineLimits(base_model=f"hf://org/one@{NEW}"),
            "WrongBaseModel",
            "serve the model that it was trained on",
        ),
        (
            {"lineage": trained_on("hf://org/one", OLD)},
            EngineLimits(base_model="hf://org/two@main"),
            "WrongBaseModel",
            f"trained on hf://org/one@{OLD}",
        ),
        (
            {"chat": ChatFormat(tools=ToolFormat.HERMES)},
            EngineLimits(tool_call_parser="mistral"),
            "ParserMismatch",
            "write engine.toolCallParser: hermes, or None",
        ),
        (
            {"chat": ChatFormat(thinking=ThinkingFormat.HARMONY)},
            EngineLimits(reasoning_parser="qwen3"),
            "ParserMismatch",
            "write engine.reasoningParser: openai_gptoss, or None",
        ),
    ],
)  # fmt: skip
def test_what_can_not_be_served_is_known_from_the_manifest(
    changes: dict[str, object], limits: EngineLimits, reason: str, remedy: str
) -> None:
    with pytest.raises(ArtifactInvalid, match=remedy) as caught:
        check_manifest(manifest(**changes), limits)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("chat", "parser"),
    [
        (None, "mistral"),
        (ChatFormat(), "mistral"),
        (ChatFormat(tools=ToolFormat.HERMES), ""),
        (ChatFormat(tools=ToolFormat.HERMES), "hermes"),
        (ChatFormat(tools=ToolFormat.HERMES), "qwen3_json"),
        (ChatFormat(tools=ToolFormat.QWEN_XML), "qwen3_xml"),
    ],
)
def test_a_parser_of_the_same_form_or_none_serves(chat: ChatFormat | None, parser: str) -> None:
    check_manifest(manifest(chat=chat), EngineLimits(tool_call_parser=parser))


@pytest.mark.parametrize(
    ("lineage", "served"),
    [
        (trained_on("hf://org/one", OLD), f"hf://org/one@{OLD}"),
        (trained_on("hf://org/one", OLD), "hf://org/one@main"),
        (trained_on("hf://org/one", OLD), "hf://org/one"),
        (trained_on("hf://org/one", OLD), "pvc://models/one"),
        (trained_on("pvc://models/one", sha256_digest(b"")), f"hf://org/one@{OLD}"),
        (trained_on("hf://org/one", OLD), ""),
    ],
)
def test_a_base_model_that_may_be_the_same_is_left_to_the_proof(lineage: Lineage, served: str) -> None:
    check_manifest(manifest(lineage=lineage, kind=ArtifactKind.RSLORA), EngineLimits(8, served))


def test_a_file_outside_the_artifact_is_refused(pod: Pod) -> None:
    version = pod.storage.commit()
    path = pod.storage.folder(version) / MANIFEST_FILE
    stored = Manifest.model_validate_json(path.read_bytes())
    outside = stored.files[0].model_copy(update={"path": "../x"})
    wrong = stored.model_copy(update={"files": (*stored.files, outside)})
    path.write_bytes(wrong.to_bytes())
    refusal = pod.refusal(version.model_copy(update={"digest": wrong.digest}))
    assert (refusal.reason, type(refusal)) == ("InvalidManifest", ArtifactInvalid)
