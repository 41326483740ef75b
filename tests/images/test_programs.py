"""Programs are built when something needs them, and only then."""

from pathlib import Path

import pytest

from tunesmith_cluster import binaries
from tunesmith_cluster.binaries import GoBuild, build_programs
from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_demo.playground import Playground


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """An empty cache, and the names of what Go is asked for, in order."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path))
    names: list[str] = []

    def run_go(build: GoBuild, target: Path) -> None:
        names.append(build.names[0])
        (target / build.names[0]).touch()

    monkeypatch.setattr(binaries, "_run_go", run_go)
    return names


def test_the_demo_builds_what_it_runs(built: list[str], tmp_path: Path) -> None:
    build_programs(Playground(Cluster(Shape.NODE, tmp_path / "state")).programs)
    assert sorted(built) == ["coredns", "helm", "multicall", "pause"]


def test_each_is_built_once_and_in_order(built: list[str]) -> None:
    build_programs(["helm", "kubectl", "etcd", "runc"])
    build_programs(["etcd", "helm", "kwok"])
    assert built == ["helm", "multicall", "kwok"]
