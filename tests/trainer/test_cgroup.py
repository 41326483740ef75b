"""Memory of the container's cgroup, both versions."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tunesmith_trainer.cgroup import count_oom_kills, free_host_memory

NODE = 1000


@pytest.mark.parametrize(
    ("file", "text", "kills"),
    [
        ("memory.events", "low 0\nmax 9\noom 3\noom_kill 2\n", 2),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", 4),
        ("memory.events", "low 0\n", 0),
        ("other", "", 0),
    ],
)
def test_out_of_memory_kills_are_counted(tmp_path: Path, file: str, text: str, kills: int) -> None:
    write(tmp_path, {file: text})
    assert count_oom_kills(tmp_path) == kills


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "600", "memory.current": "500", "memory.stat": "anon 420\ninactive_file 80\n"}, 180),
        ({"memory.max": "600", "memory.current": "700", "memory.stat": "inactive_file 10\n"}, 0),
        ({"memory.max": "max", "memory.current": "500", "memory.stat": "inactive_file 80\n"}, NODE),
        ({"memory.max": "90000", "memory.current": "500", "memory.stat": "inactive_file 80\n"}, NODE),
        (
            {
                "memory/memory.limit_in_bytes": "600",
                "memory/memory.usage_in_bytes": "500",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n",
            },
            150,
        ),
        ({}, NODE),
    ],
)
def test_free_memory_is_the_nodes_within_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], free: int
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=NODE))
    write(tmp_path, files)
    assert free_host_memory(tmp_path) == free


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
