"""Paths of files in pods, and of folders below an output URI."""

from enum import StrEnum
from pathlib import PurePosixPath

from .uris import Scheme, StorageUri

CONFIG_DIR = PurePosixPath("/etc/tunesmith")
RUN_FILE = "run.json"
TERMINATION_LOG = PurePosixPath("/dev/termination-log")
CREDENTIALS_DIR = PurePosixPath("/var/run/secrets/tunesmith")
SECRETS_DIR = PurePosixPath("/var/run/secrets/tunesmith-user")
TOKEN_FILE = "token"
CA_FILE = "ca.crt"
TOKEN_AUDIENCE = "tunesmith.dev/operator"

MANIFEST_FILE = "manifest.json"

#: Copies of adapters in a serving pod: written by the agent, read by the engine at the same path.
ADAPTER_CACHE_DIR = PurePosixPath("/var/cache/tunesmith-adapters")

#: Socket at which the engine of a serving pod takes requests, in a folder that engine and agent share.
ENGINE_SOCKET = PurePosixPath("/run/tunesmith/engine.sock")

#: TensorBoard's event files of a run, in its work folder; they stay when the rest of it goes.
TENSORBOARD_FOLDER = "tensorboard"

#: Folder of the data report of prepare, for people and programs; it stays as well.
DATA_REPORT_FOLDER = "data-report"
DATA_REPORT_PAGE = "report.html"
DATA_REPORT_FILE = "report.json"
FINDINGS_FILE = "findings.jsonl"
DROPPED_FILE = "dropped.jsonl"

#: Folder with table and plot of a search in one pod, for people and programs; it stays as well.
SEARCH_FOLDER = "search"
SEARCH_PAGE = "search.html"
SEARCH_FILE = "search.json"

#: The report of an evaluation, beside its items; the pages for people lie there, too.
EVALUATION_REPORT_FILE = "report.json"

#: The rows that prepare leaves for training.
TRAIN_FILE = "train.parquet"
VALIDATION_FILE = "validation.parquet"

#: How rows were generated; beside the report, where there are any.
GENERATION_FILE = "generation.json"

#: Overrides the micro batch size of ``run.json`` for one attempt: the remedy after running out of memory.
MICRO_BATCH_ENV = "TUNESMITH_MICRO_BATCH_SIZE"

#: JSON of the ``FinishedWork`` that a pod may take over instead of doing the work again.
FINISHED_ENV = "TUNESMITH_FINISHED"

#: The file that declares a checkpoint whole, and lists its files.
COMMIT_FILE = "commit.json"

#: Names the file where the first worker leaves its newest committed checkpoint, for the launcher.
CHECKPOINT_FILE_ENV = "TUNESMITH_CHECKPOINT_FILE"

#: Which attempt of a stage a pod belongs to, a growing number: only the newest attempt's pods may write checkpoints.
ATTEMPT_ENV = "TUNESMITH_ATTEMPT"

#: Number of cores that the workers of a pod share; absent if people set the threads of each worker.
CPUS_ENV = "TUNESMITH_CPUS"

#: Names the folder on a claim where models from the Hugging Face Hub are kept for later pods.
MODEL_CACHE_ENV = "TUNESMITH_MODEL_CACHE"

_CHECKPOINTS = "checkpoints"
_CHECKPOINT = "checkpoint-"


class SecretRole(StrEnum):
    """Role of a Secret; each is mounted as files in a folder of its own.

    ``ARTIFACTS`` and ``CLIENTS`` are a serving pod's: the adapters that it fetches, and the keys of its clients.
    ``GENERATOR``, ``JUDGE``, ``FILTER_JUDGE`` and ``SEEDS`` are generation's: the teacher, who compares answers, who
    scores them, and the rows that it starts from. ``EXAMPLES`` is an evaluation's: rows from which worked examples are
    drawn.
    """

    BASE_MODEL = "base-model"
    TRAIN = "train"
    VALIDATION = "validation"
    OUTPUT = "output"
    WORKSPACE = "workspace"
    TEACHER = "teacher"
    GENERATOR = "generator"
    JUDGE = "judge"
    FILTER_JUDGE = "filter-judge"
    SEEDS = "seeds"
    MLFLOW = "mlflow"
    WEIGHTS_AND_BIASES = "weights-and-biases"
    ARTIFACTS = "artifacts"
    CLIENTS = "clients"
    EXAMPLES = "examples"


def secret_dir(role: str) -> PurePosixPath:
    """Folder in a pod with the keys of the Secret in this role, a file each."""
    return SECRETS_DIR / role


def reward_role(name: str) -> str:
    """Role of the Secret that opens a reward's endpoint or model."""
    return f"reward-{name}"


def filter_role(name: str) -> str:
    """Role of the Secret that opens the endpoint of a reward by which generated rows are filtered."""
    return f"filter-reward-{name}"


def side_role(side: str) -> str:
    """Role of the Secret that opens a side of an evaluation: its artifact, model, endpoint or stored answers."""
    return f"side-{side}"


def side_model_role(side: str) -> str:
    """Role of the Secret that opens the base model of a side's adapter, where it is not that of the run."""
    return f"model-of-{side}"


def trained_rows_role(side: str, generation: int) -> str:
    """Role of the Secret that opens rows that a side was trained on.

    Args:
        generation: place in the lineage of the side, from 0.
    """
    return f"rows-{generation}-of-{side}"


def suite_role(suite: str) -> str:
    """Role of the Secret that opens the items of a suite."""
    return f"suite-{suite}"


def metric_role(suite: str, index: int) -> str:
    """Role of the Secret that opens the judge or the embedding model of a suite's metric.

    Args:
        index: place of the metric in the suite; its name may be longer than a volume's name.
    """
    return f"metric-{suite}-{index}"


def work_uri(workspace: StorageUri, namespace: str, uid: str) -> StorageUri:
    """Folder of one resource's work files, in its workspace or else its output; pruned when it has succeeded."""
    return workspace.join(namespace, uid)


def prepared_uri(work: StorageUri) -> StorageUri:
    """``train.parquet`` and ``validation.parquet`` in TRL's canonical form, and ``report.json``."""
    return work.join("prepared")


def generated_uri(work: StorageUri) -> StorageUri:
    """File of generated rows, which stays: they were paid for."""
    return work.join("generated", "generated.jsonl")


def journal_uri(work: StorageUri) -> StorageUri:
    """Folder of the journal of requests and answers; removed with the other work files."""
    return work.join("journal")


def checkpoints_uri(work: StorageUri) -> StorageUri:
    """Folder with one folder for each checkpoint, committed by its manifest."""
    return work.join(_CHECKPOINTS)


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint of a step; transformers uses the same."""
    return f"{_CHECKPOINT}{step}"


def checkpoint_step(name: str) -> int | None:
    """Step of the checkpoint in a folder of this name; None for other folders."""
    step = name.removeprefix(_CHECKPOINT)
    return int(step) if step != name and step.isdecimal() else None


def is_checkpoint(uri: StorageUri) -> bool:
    """True for a folder that has the name of a checkpoint; artifacts have the digest for a name, or a tag."""
    return checkpoint_step(PurePosixPath(uri.path).name) is not None


def work_of_checkpoint(uri: StorageUri) -> StorageUri | None:
    """Folder of the work files among which a checkpoint lies; None for a copy of it elsewhere."""
    checkpoints = PurePosixPath(uri.path).parent
    if not is_checkpoint(uri) or checkpoints.name != _CHECKPOINTS:
        return None
    return uri._replace(path=str(checkpoints.parent))


def report_uri(work: StorageUri, stage: str) -> StorageUri:
    """File of a stage's committed RunReport: a rerun that finds it exits 0 with it."""
    return work.join("reports", f"{stage}.json")


def artifact_uri(output: StorageUri, digest: str) -> StorageUri:
    """Content-addressed URI of an artifact, never deleted automatically: a folder, or an ``oci://`` tag."""
    if output.scheme is Scheme.OCI:
        return output._replace(revision=digest.replace(":", "-"))
    return output.join("sha256", digest.removeprefix("sha256:"))


def output_of(artifact: StorageUri) -> StorageUri:
    """Output URI below which an artifact lies: ``pvc://claim/folder`` of ``…/folder/sha256/<hex>``."""
    if artifact.scheme is Scheme.OCI:
        return artifact._replace(revision=None)
    folder, separator, _ = f"/{artifact.path}".rpartition("/sha256/")
    return artifact._replace(path=folder.strip("/") if separator else "")
