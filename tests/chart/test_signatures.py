"""The chart in a registry, signed and verified by cosign; in the long form, since cosign has to be built for it."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.storage_servers import Registry, run_registry

from tunesmith_cluster.binaries import program

# cosign takes minutes to build, once.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

CHART = Path(__file__).parents[2] / "helm" / "tunesmith"
#: The registry of the tests speaks HTTP, and there is no public log of signatures.
SIGN = ("--use-signing-config=false", "--tlog-upload=false", "--allow-http-registry", "--yes")
VERIFY = ("--insecure-ignore-tlog", "--allow-http-registry")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty registry over plain HTTP."""
    with run_registry(tmp_path / "registry") as server:
        yield server


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder, with a key's empty password, and nobody to ask."""
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "COSIGN_PASSWORD": ""}
    return subprocess.run(
        [program(command[0]), *command[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def succeed(folder: Path, *command: str) -> str:
    """Output of a command that must succeed."""
    result = run(folder, *command)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def push(folder: Path, registry: Registry, version: str) -> str:
    """Package and push the chart; its name in the registry, with digest."""
    succeed(folder, "helm", "package", str(CHART), f"--version={version}")
    to = f"oci://{registry.host}/charts"
    output = succeed(folder, "helm", "push", f"tunesmith-{version}.tgz", to, "--plain-http")
    found = re.search(r"Digest: (sha256:[0-9a-f]{64})", output)
    assert found, output
    return f"{registry.host}/charts/tunesmith@{found[1]}"


def test_a_chart_in_a_registry_is_signed_and_verified(registry: Registry, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        succeed(folder, "cosign", "generate-key-pair")
    signed, unsigned = push(ours, registry, "0.1.0"), push(ours, registry, "0.1.1")
    succeed(ours, "cosign", "sign", "--key=cosign.key", *SIGN, signed)

    assert signed.partition("@")[2] in succeed(ours, "cosign", "verify", "--key=cosign.pub", *VERIFY, signed)
    assert run(ours, "cosign", "verify", "--key=cosign.pub", *VERIFY, unsigned).returncode
    assert run(theirs, "cosign", "verify", "--key=cosign.pub", *VERIFY, signed).returncode
