"""Real servers of stores, each on a port of its own: S3 (versitygw) and an OCI registry (distribution)."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers.ports import free_port

from tunesmith_cluster.binaries import program

BUCKET = "artifacts"
ACCESS_KEY, SECRET_KEY = "AKIATUNESMITH0000000", "s3-secret-of-the-tests"
USER, PASSWORD = "robot", "open-sesame-42"
_PASSWORD_HASH = "$2b$05$abcdefghijklmnopqrstuuPvlXCRQqKpBba0rJZc1LI5TCJ1Gzh5e"  # of PASSWORD, by bcrypt
_START_SECONDS = 30


@contextmanager
def running(
    command: Sequence[str], port: int, log: Path, start_seconds: float = _START_SECONDS, **env: str
) -> Iterator[None]:
    """A server that listens on a port of loopback after so many seconds at the latest, ended at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **env}, cwd=log.parent
        )
    try:
        _wait_for_port(process, port, log, start_seconds)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_port(process: "subprocess.Popen[bytes]", port: int, log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} does not listen: {log.read_text()[-2000:]}") from None
            time.sleep(0.02)


@dataclass(frozen=True)
class S3Server:
    """An S3 server whose buckets are the folders below ``root``; an object is a file there."""

    url: str
    root: Path

    def secret(self) -> dict[str, str]:
        """The keys of a Secret that opens it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
        }


@contextmanager
def run_s3(folder: Path) -> Iterator[S3Server]:
    """An S3 server with one empty bucket."""
    root, meta = folder / "buckets", folder / "meta"
    (root / BUCKET).mkdir(parents=True)
    meta.mkdir()
    port = free_port()
    login = ["--access", ACCESS_KEY, "--secret", SECRET_KEY]
    command = [program("versitygw"), "--port", f"127.0.0.1:{port}", *login, "--quiet"]
    with running([*command, "posix", "--sidecar", str(meta), str(root)], port, folder / "s3.log"):
        yield S3Server(f"http://127.0.0.1:{port}", root)


@dataclass(frozen=True)
class Registry:
    """An OCI registry; blobs are files below ``root``."""

    host: str
    root: Path
    log: Path

    def uploads(self) -> int:
        """How many blobs it has taken in so far."""
        lines = self.log.read_text().splitlines()
        return sum('"PUT /v2/' in line and "/blobs/uploads/" in line for line in lines)

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        hexadecimal = digest.removeprefix("sha256:")
        blobs = self.root / "docker/registry/v2/blobs/sha256"
        return blobs / hexadecimal[:2] / hexadecimal / "data"


@contextmanager
def run_registry(
    folder: Path, certificate: str = "", key: str = "", *, login: bool = False
) -> Iterator[Registry]:
    """An OCI registry, over TLS where it has a certificate, for USER and PASSWORD alone where a login is asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    port, root = free_port(), folder / "blobs"
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": False}, "level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(root)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if certificate:
        config["http"] = {"addr": f"127.0.0.1:{port}", "tls": {"certificate": certificate, "key": key}}
    if login:
        (folder / "htpasswd").write_text(f"{USER}:{_PASSWORD_HASH}\n")
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    (folder / "config.yaml").write_text(json.dumps(config))
    log = folder / "registry.log"
    command = [program("registry"), "serve", str(folder / "config.yaml")]
    with running(command, port, log, OTEL_TRACES_EXPORTER="none"):
        yield Registry(f"127.0.0.1:{port}", root, log)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server."""
    with run_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry over plain HTTP that lets everyone in."""
    with run_registry(tmp_path_factory.mktemp("open-registry")) as server:
        yield server
