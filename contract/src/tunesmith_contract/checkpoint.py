"""Commit manifest of a checkpoint; the digest of its bytes is the checkpoint's digest."""

from datetime import datetime
from typing import Literal

from .artifact import File
from .base import Document
from .run_config import Parallelism


class CommitManifest(Document):
    """Contents of ``commit.json``: files of a checkpoint, and the distributed set-up that wrote them."""

    schema_version: Literal[1] = 1
    step: int
    files: tuple[File, ...]
    world_size: int = 1
    parallelism: Parallelism = Parallelism.DDP
    attempt: int = 0
    eval_loss: float | None = None
    time: datetime
