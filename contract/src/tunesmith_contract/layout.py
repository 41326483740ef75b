"""Where things lie: files in pods, and folders below an output URI."""

from pathlib import PurePosixPath

from .uris import StorageUri

CONFIG_DIR = PurePosixPath("/etc/tunesmith")
RUN_FILE = "run.json"
TERMINATION_LOG = PurePosixPath("/dev/termination-log")
CREDENTIALS_DIR = PurePosixPath("/var/run/secrets/tunesmith")
TOKEN_FILE = "token"
CA_FILE = "ca.crt"
TOKEN_AUDIENCE = "tunesmith.dev/operator"

MANIFEST_FILE = "manifest.json"


def work_uri(output: StorageUri, namespace: str, uid: str) -> StorageUri:
    """The folder of one resource's own files; pruned when it has succeeded."""
    return output.join(namespace, uid)


def prepared_uri(work: StorageUri) -> StorageUri:
    """``train.parquet`` and ``validation.parquet`` in TRL's canonical form, and ``report.json``."""
    return work.join("prepared")


def checkpoints_uri(work: StorageUri) -> StorageUri:
    """One folder per checkpoint, committed by its manifest."""
    return work.join("checkpoints")


def report_uri(work: StorageUri, stage: str) -> StorageUri:
    """The committed RunReport of a stage: a rerun that finds it exits 0 with it."""
    return work.join("reports", f"{stage}.json")


def artifact_uri(output: StorageUri, digest: str) -> StorageUri:
    """The content-addressed folder of an artefact; never deleted automatically."""
    return output.join("sha256", digest.removeprefix("sha256:"))
