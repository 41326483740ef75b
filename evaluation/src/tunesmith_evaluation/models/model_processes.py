"""Processes that answer in parallel, each with its own copy of the model on GPUs of its own."""

import math
import multiprocessing
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Self

import torch

from tunesmith_contract.report import Failure
from tunesmith_contract.shared_rules.answer_memory import MAX_ROWS, AnswerMemory
from tunesmith_data.failures import InfrastructureError, StageError, describe

from .placement import Placement
from .side_models import Results, SideModels, Task
from .sides import ModelGroup

#: Results of a batch by the index in its task; None: the task is done.
Reply = Results | Failure | None


class ModelProcesses:
    """Sides that answer in several processes; used as a context manager, which ends them.

    Each process loads the model with its first task. Tasks are handed out one at a time, so that a process that is
    done early takes more of them.

    Args:
        group: folders of the model and its adapters.
        memory: memory of the model.
        placements: devices of each process.
    """

    def __init__(self, group: ModelGroup, memory: AnswerMemory, placements: Sequence[Placement]) -> None:
        self._group, self._memory, self._placements = group, memory, placements
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")  # a forked process can't use CUDA
        for placement in self._placements:
            ours, theirs = context.Pipe()
            arguments = (theirs, self._group, self._memory, placement)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._processes[ours] = process
        return self

    def __exit__(self, *_: object) -> None:
        for connection, process in self._processes.items():
            connection.close()
            process.kill()
            process.join()
        self._processes.clear()

    def run(self, task: Task) -> Iterator[Results]:
        """Results of a task, one dictionary per batch.

        Raises:
            StageError: a process failed or died.
        """
        shares = deque(share(task.lengths, len(self._processes)))
        idle, busy = list(self._processes), dict[Connection, list[int]]()
        while shares or busy:
            while shares and idle:
                connection, indices = idle.pop(), shares.popleft()
                self._send(connection, task.select(indices))
                busy[connection] = indices
            ready = wait(list(busy))
            for connection in [candidate for candidate in busy if candidate in ready]:
                results = self._receive(connection)
                if results is None:
                    del busy[connection]
                    idle.append(connection)
                else:
                    numbered: Any = {busy[connection][index]: result for index, result in results.items()}
                    yield numbered

    def _send(self, connection: Connection, task: Task) -> None:
        try:
            connection.send(task)
        except BrokenPipeError:
            raise self._died(connection) from None

    def _receive(self, connection: Connection) -> Results | None:
        try:
            reply: Reply = connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._died(connection) from None
        if isinstance(reply, Failure):
            raise StageError(reply.category, reply.reason, reply.message)
        return reply

    def _died(self, connection: Connection) -> InfrastructureError:
        process = self._processes[connection]
        process.join()
        message = f"a process that evaluates ended with {process.exitcode}: see the log"
        return InfrastructureError("WorkerDied", message)


def share(lengths: Sequence[int], processes: int) -> list[list[int]]:
    """Indices of the prompts of each task: tasks of equal size, an equal number for each process, longest first."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    if not order:
        return []
    rounds = math.ceil(len(order) / (processes * MAX_ROWS))
    size = math.ceil(len(order) / (processes * rounds))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _serve(connection: Connection, group: ModelGroup, memory: AnswerMemory, placement: Placement) -> None:
    """Run tasks until the connection is closed."""
    if placement.gpus:
        # What names no device uses this one, instead of memory of the first GPU in every process.
        torch.cuda.set_device(placement.gpus[0])
    models = SideModels(group, memory, placement)
    while True:
        try:
            task: Task = connection.recv()
        except EOFError:
            return
        connection.send(_run(models, task, connection))


def _run(models: SideModels, task: Task, connection: Connection) -> Failure | None:
    """Send the results of each batch; the failure, if there is one."""
    try:
        for results in models.run(task):
            connection.send(results)
    except Exception as error:  # the outermost frame of a task
        traceback.print_exc()
        return describe(error)
    return None
