"""Where the workers of a run meet: nobody waits for ever, and whoever is missing is named."""

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

JOIN_SECONDS_ENV = "TUNESMITH_JOIN_SECONDS"
SILENCE_SECONDS_ENV = "TUNESMITH_SILENCE_SECONDS"

#: Pods of one gang come up minutes apart where images are pulled and nodes are added.
JOIN_SECONDS = 1800

#: Longer than the first rank takes to digest a large checkpoint while the others wait for it.
SILENCE_SECONDS = 1800

_CONNECT_SECONDS = 30
_POLL_SECONDS = 0.2


class CommunicationError(StageError):
    """Another worker can't be reached: a new gang may do better."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(FailureCategory.COMMUNICATION, reason, message)


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's place in the run, as torchrun's variables say it.

    Attributes:
        rank: among all workers.
        local_rank: among those of this pod.
        world: how many workers there are.
        master_addr: host name of the first pod.
        master_port: where the first worker listens.
        join_seconds: how long to wait for the others at the start.
        silence_seconds: how long to wait for another worker within a step.
    """

    rank: int = 0
    local_rank: int = 0
    world: int = 1
    master_addr: str = "localhost"
    master_port: int = 0
    join_seconds: float = JOIN_SECONDS
    silence_seconds: float = SILENCE_SECONDS


def read_place(environment: Mapping[str, str]) -> Place:
    """The place that the launcher gave to this worker."""
    return Place(
        rank=int(environment.get("RANK", "0")),
        local_rank=int(environment.get("LOCAL_RANK", "0")),
        world=int(environment.get("WORLD_SIZE", "1")),
        master_addr=environment.get("MASTER_ADDR", "localhost"),
        master_port=int(environment.get("MASTER_PORT", "0")),
        join_seconds=float(environment.get(JOIN_SECONDS_ENV, JOIN_SECONDS)),
        silence_seconds=float(environment.get(SILENCE_SECONDS_ENV, SILENCE_SECONDS)),
    )


def join(place: Place, preemption: Preemption) -> None:
    """Start the process group, over NCCL with GPUs and over gloo without.

    Raises:
        CommunicationError: the first pod's name, its port or a worker does not show up in time.
        Preempted: the pod was told to go while it waited.
    """
    wait = _Wait(place, preemption)
    if place.rank > 0:
        wait.until(lambda: _resolves(place.master_addr), f"the name {place.master_addr} does not resolve")
        address = f"{place.master_addr}:{place.master_port}"
        wait.until(lambda: _listens(place), f"worker 0 does not listen at {address}")
    store = dist.TCPStore(
        place.master_addr,
        place.master_port,
        place.world,
        is_master=place.rank == 0,
        wait_for_workers=False,
        timeout=timedelta(seconds=_CONNECT_SECONDS),
    )
    store.set(_arrival(place.rank), "")
    others = [_arrival(rank) for rank in range(place.world)]
    wait.until(lambda: store.check(others), lambda: _name_missing(store, place.world))
    _start_group(place, store)


def _start_group(place: Place, store: dist.Store) -> None:
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(place.local_rank)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.PrefixStore("group", store),
        rank=place.rank,
        world_size=place.world,
        timeout=timedelta(seconds=place.silence_seconds),
        device_id=torch.device("cuda", place.local_rank) if on_gpu else None,
    )


def stand_alone() -> None:
    """A process group of one, which DeepSpeed needs; no port is opened for it."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


class _Wait:
    """Waits for one thing after the other, all of them until one deadline."""

    def __init__(self, place: Place, preemption: Preemption) -> None:
        self._seconds = place.join_seconds
        self._deadline = time.monotonic() + place.join_seconds
        self._preemption = preemption

    def until(self, holds: Callable[[], bool], complaint: str | Callable[[], str]) -> None:
        """Ask again and again; a pod that is told to go stops waiting."""
        while not holds():
            self._preemption.check()
            if time.monotonic() > self._deadline:
                what = complaint if isinstance(complaint, str) else complaint()
                message = (
                    f"{what} after {self._seconds:.0f} seconds: see whether all pods of the run are scheduled"
                )
                raise CommunicationError("GangIncomplete", message)
            time.sleep(_POLL_SECONDS)


def _arrival(rank: int) -> str:
    return f"arrived/{rank}"


def _name_missing(store: dist.Store, world: int) -> str:
    missing = [str(rank) for rank in range(world) if not store.check([_arrival(rank)])]
    return f"{'worker' if len(missing) == 1 else 'workers'} {', '.join(missing)} did not join"


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def _listens(place: Place) -> bool:
    try:
        with socket.create_connection((place.master_addr, place.master_port), timeout=1):
            return True
    except OSError:
        return False
