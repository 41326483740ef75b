"""Rendezvous of a run's workers, with time limits and the names of missing workers."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_data.failures import StageError
from tunesmith_trainer.preemption import Preemption

from .control_group import start_control_group

JOIN_SECONDS_ENV = "TUNESMITH_JOIN_SECONDS"
SILENCE_SECONDS_ENV = "TUNESMITH_SILENCE_SECONDS"

#: Pods of one gang come up minutes apart where images are pulled and nodes are added.
JOIN_SECONDS = 1800

#: Longer than any step, and than the first rank writes its part of a checkpoint after the others theirs.
SILENCE_SECONDS = 1800

_CONNECT_SECONDS = 30
_POLL_SECONDS = 0.2


class CommunicationError(StageError):
    """Failure to reach another worker, which a new attempt may not have."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(FailureCategory.COMMUNICATION, reason, message)


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Ranks, address and time limits of a worker, from torchrun's variables.

    Attributes:
        rank: rank among all workers.
        local_rank: rank among the workers of this pod.
        world_size: number of workers.
        master_addr: host name of the first pod.
        master_port: port of the first worker.
        join_seconds: time limit for all workers to join.
        silence_seconds: time limit of a collective operation.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    master_addr: str = "localhost"
    master_port: int = 0
    join_seconds: float = JOIN_SECONDS
    silence_seconds: float = SILENCE_SECONDS


def read_rendezvous(environment: Mapping[str, str]) -> Rendezvous:
    """Rendezvous of this worker, from the variables that the launcher set."""
    return Rendezvous(
        rank=int(environment.get("RANK", "0")),
        local_rank=int(environment.get("LOCAL_RANK", "0")),
        world_size=int(environment.get("WORLD_SIZE", "1")),
        master_addr=environment.get("MASTER_ADDR", "localhost"),
        master_port=int(environment.get("MASTER_PORT", "0")),
        join_seconds=float(environment.get(JOIN_SECONDS_ENV, JOIN_SECONDS)),
        silence_seconds=float(environment.get(SILENCE_SECONDS_ENV, SILENCE_SECONDS)),
    )


def join_gang(rendezvous: Rendezvous, preemption: Preemption, *, on_gpu: bool) -> None:
    """Wait for all workers and start the process group, over NCCL with GPUs and gloo without.

    Raises:
        CommunicationError: the first pod's name or port can't be reached in time, or a worker does not join.
        Preempted: the pod received SIGTERM meanwhile.
    """
    wait = _Wait(rendezvous, preemption)
    if rendezvous.rank > 0:
        wait.until(
            lambda: _resolves(rendezvous.master_addr), f"the name {rendezvous.master_addr} does not resolve"
        )
        address = f"{rendezvous.master_addr}:{rendezvous.master_port}"
        wait.until(lambda: _listens(rendezvous), f"worker 0 does not listen at {address}")
    store = dist.TCPStore(
        rendezvous.master_addr,
        rendezvous.master_port,
        rendezvous.world_size,
        is_master=rendezvous.rank == 0,
        wait_for_workers=False,
        timeout=timedelta(seconds=_CONNECT_SECONDS),
    )
    store.set(_arrival_key(rendezvous.rank), "")
    arrivals = [_arrival_key(rank) for rank in range(rendezvous.world_size)]
    wait.until(lambda: store.check(arrivals), lambda: _name_missing(store, rendezvous.world_size))
    _start_group(rendezvous, store, on_gpu=on_gpu)


def _start_group(rendezvous: Rendezvous, store: dist.Store, *, on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.set_device(rendezvous.local_rank)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.PrefixStore("group", store),
        rank=rendezvous.rank,
        world_size=rendezvous.world_size,
        timeout=timedelta(seconds=rendezvous.silence_seconds),
        device_id=torch.device("cuda", rendezvous.local_rank) if on_gpu else None,
    )
    start_control_group()


def start_single_process_group(*, on_gpu: bool) -> None:
    """Start a process group of one worker, which DeepSpeed needs, without a network port."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    dist.init_process_group("nccl" if on_gpu else "gloo", store=dist.HashStore(), rank=0, world_size=1)


class _Wait:
    """Polling of several conditions, one after the other, with a common deadline."""

    def __init__(self, rendezvous: Rendezvous, preemption: Preemption) -> None:
        self._seconds = rendezvous.join_seconds
        self._deadline = time.monotonic() + rendezvous.join_seconds
        self._preemption = preemption

    def until(self, holds: Callable[[], bool], problem: str | Callable[[], str]) -> None:
        """Poll until a condition holds.

        Raises:
            CommunicationError: the deadline has passed; ``problem`` is its message.
            Preempted: the pod received SIGTERM.
        """
        while not holds():
            self._preemption.check()
            if time.monotonic() > self._deadline:
                text = problem if isinstance(problem, str) else problem()
                message = (
                    f"{text} after {self._seconds:.0f} seconds: check that all pods of the run are scheduled"
                )
                raise CommunicationError("GangIncomplete", message)
            time.sleep(_POLL_SECONDS)


def _arrival_key(rank: int) -> str:
    return f"arrived/{rank}"


def _name_missing(store: dist.Store, world: int) -> str:
    missing = [str(rank) for rank in range(world) if not store.check([_arrival_key(rank)])]
    return f"{'worker' if len(missing) == 1 else 'workers'} {', '.join(missing)} did not join"


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def _listens(rendezvous: Rendezvous) -> bool:
    try:
        with socket.create_connection((rendezvous.master_addr, rendezvous.master_port), timeout=1):
            return True
    except OSError:
        return False
