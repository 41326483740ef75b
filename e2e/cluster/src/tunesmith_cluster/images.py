"""Import of OCI archives into a node's containerd."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

from tunesmith_cluster.api import Document
from tunesmith_cluster.binaries import program
from tunesmith_cluster.errors import ClusterError
from tunesmith_cluster.report import say, stage

NAMESPACE = "k8s.io"
REFERENCE = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
PAUSE_IMAGE = "tunesmith.test/pause:1"
MEDIA = "application/vnd.oci.image"


class ImageStore:
    """The images of one containerd, which keeps them when the cluster goes down."""

    def __init__(self, address: Path) -> None:
        self._address = address

    def ctr(self, *arguments: str) -> str:
        """Standard output of containerd's client in the namespace of Kubernetes.

        Raises:
            ClusterError: it ended with another status than 0.
        """
        command = [program("ctr"), "--address", str(self._address), "--namespace", NAMESPACE, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise ClusterError(f"{' '.join(command)}: {result.stderr.strip()}")
        return result.stdout

    def load(self, archive: Path) -> list[str]:
        """Import an OCI archive, unless all of its images are there by name and digest; returns their names.

        Raises:
            ClusterError: it is no OCI archive, names no image, or containerd refuses it.
        """
        wanted = read_references(archive)
        if wanted.items() <= self.digests().items():
            say(f"  {', '.join(wanted)} is loaded already")
        else:
            with stage(f"load {archive.name}"):
                self.ctr("images", "import", str(archive))
        return list(wanted)

    def digests(self) -> dict[str, str]:
        """Digest of every image by its name."""
        rows = [line.split() for line in self.ctr("images", "list").splitlines()[1:]]
        return {row[0]: row[2] for row in rows}


def read_references(archive: Path) -> dict[str, str]:
    """Digest of each image in an OCI archive by its name.

    Raises:
        ClusterError: it is no OCI archive or names no image.
    """
    try:
        with tarfile.open(archive, "r:") as bundle:
            member = bundle.extractfile("index.json")
            index = json.load(member) if member else {}
    except (OSError, KeyError, tarfile.TarError) as error:
        raise ClusterError(f"{archive} is no OCI archive ({error}): write it with `oci-archive:`") from error
    entries = index.get("manifests", ())
    names = {_name_of(entry): entry["digest"] for entry in entries}
    if not names or "" in names:
        raise ClusterError(f"{archive} names no image: push it to oci-archive:{archive}:<name>:<tag>")
    for name in names:
        host = name.partition("/")[0]
        if not ({".", ":"} & set(host) or host == "localhost") or "/" not in name:
            raise ClusterError(
                f"{archive} names the image {name}, which Kubernetes would look for elsewhere: "
                f"begin the name with a host, such as localhost/{name}"
            )
    return names


def _name_of(entry: Document) -> str:
    """The image's whole name, which containerd looks for first, or the reference, which may be a mere tag."""
    annotations = entry.get("annotations", {})
    return str(annotations.get(CONTAINERD_NAME) or annotations.get(REFERENCE) or "")


def write_static_image(archive: Path, name: str, binary: Path) -> None:
    """Write an OCI archive of an image that holds one static program. The same input gives the same bytes."""
    layer = _tar({binary.name: binary.read_bytes()})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [f"/{binary.name}"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    blobs = {_digest(layer): layer}

    def describe(kind: str, content: bytes) -> dict[str, object]:
        blobs[_digest(content)] = content
        return {"mediaType": f"{MEDIA}.{kind}", "digest": _digest(content), "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": describe("config.v1+json", _json(config)),
        "layers": [describe("layer.v1.tar", layer)],
    }
    entry = {**describe("manifest.v1+json", _json(manifest)), "annotations": {REFERENCE: name}}
    files = {f"blobs/{digest.replace(':', '/')}": content for digest, content in blobs.items()}
    files["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    files["index.json"] = _json({"schemaVersion": 2, "manifests": [entry]})
    archive.write_bytes(_tar(files))


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _tar(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as bundle:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            bundle.addfile(member, io.BytesIO(content))
    return target.getvalue()
