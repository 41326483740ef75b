"""Which clusters tests may touch."""

from pathlib import Path

import pytest
import yaml

from tunesmith_cluster.context import KUBECONFIG_VARIABLE, allowed_context, kubeconfig_from_environment
from tunesmith_cluster.errors import ClusterError


def write_kubeconfig(path: Path, context: str) -> Path:
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "current-context": context,
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("context", ["tunesmith-node", "tunesmith-control-plane", "kind-anything"])
def test_a_test_cluster_is_accepted(tmp_path: Path, context: str) -> None:
    assert allowed_context(write_kubeconfig(tmp_path / "config", context)) == context


def test_any_other_context_is_refused_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_kubeconfig(tmp_path / "config", "production")
    monkeypatch.setenv(KUBECONFIG_VARIABLE, str(path))
    with pytest.raises(ClusterError, match=r"'production'.*tunesmith-\* or kind-\*"):
        kubeconfig_from_environment()


def test_a_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=f"no kubeconfig {tmp_path}/none"):
        allowed_context(tmp_path / "none")


def test_a_kubeconfig_without_a_current_context_says_what_to_set(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("clusters: []\n")
    with pytest.raises(ClusterError, match="set current-context"):
        allowed_context(path)
