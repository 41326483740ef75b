"""Control group of all workers: waits for each other's reads and writes, outside the time limit of a step.

NCCL's watchdog ends a process whose peers stay away for half an hour, and on a slow disk the first rank may need
longer to write, verify or upload a checkpoint. So all such waits go over a gloo group with a time limit of hours. A
lost worker is noticed at once all the same, by its closed connection.
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

import torch.distributed as dist

WAIT_SECONDS_ENV = "TUNESMITH_WAIT_SECONDS"

#: A checkpoint of 1.1 TB (70 billion parameters, trained in full) takes three hours at 100 MB/s.
WAIT_SECONDS = 6 * 3600


class _Control:
    """The control group of this process; None in a run of one worker."""

    group: ClassVar[dist.ProcessGroup | None] = None


def start_control_group(environment: Mapping[str, str] = os.environ) -> None:
    """Connect all workers of the default group over gloo; all must call it."""
    seconds = float(environment.get(WAIT_SECONDS_ENV, WAIT_SECONDS))
    _Control.group = dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))


def end_groups() -> None:
    """Leave all process groups."""
    _Control.group = None
    if dist.is_initialized():
        dist.destroy_process_group()


def wait_for_all() -> None:
    """Wait for all workers, however slow a disk one of them waits for."""
    if _Control.group is not None:
        dist.barrier(_Control.group)


def broadcast_from_first(value: Any) -> Any:
    """Value of the first rank, on all ranks; all of them must call it, and wait as long as the first one needs."""
    if _Control.group is None:
        return value
    values = [value]
    dist.broadcast_object_list(values, group=_Control.group)
    return values[0]


def gather_on_first(value: Any) -> list[Any]:
    """Values of all ranks in their order on the first rank, an empty list on the others; all must call it."""
    if _Control.group is None:
        return [value]
    first = dist.get_rank() == 0
    values: list[Any] = [None] * dist.get_world_size() if first else []
    dist.gather_object(value, values if first else None, group=_Control.group)
    return values
