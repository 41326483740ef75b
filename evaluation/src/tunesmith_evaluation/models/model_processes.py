"""Processes that answer in parallel, each with its own copy of the models on GPUs of its own."""

import math
import multiprocessing
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple, Self

import torch

from tunesmith_contract.report import Failure
from tunesmith_contract.shared_rules.answer_memory import MAX_ROWS, AnswerMemory
from tunesmith_data.failures import InfrastructureError, StageError, describe

from .generation import longest_first
from .placement import Placement
from .side_models import SideModels
from .sides import VerifiedSides


class Task(NamedTuple):
    """Prompts for one process."""

    side: str
    prompts: list[list[int]]
    max_new_tokens: int


#: Answers of a batch by the index of the prompt in its task; None: the task is done.
Reply = dict[int, str] | Failure | None


class ModelProcesses:
    """Sides that answer in several processes; used as a context manager, which ends them.

    Each process loads a side's model when it is first asked for it. Tasks are handed out one at a time, so that a
    process that is done early takes more of them.

    Args:
        sides: folders of the models and adapters.
        memory: memory of one model.
        placements: devices of each process.
    """

    def __init__(self, sides: VerifiedSides, memory: AnswerMemory, placements: Sequence[Placement]) -> None:
        self._sides, self._memory, self._placements = sides, memory, placements
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")  # a forked process can't use CUDA
        for placement in self._placements:
            ours, theirs = context.Pipe()
            arguments = (theirs, self._sides, self._memory, placement)
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

    def answer(
        self, side: str, prompts: Sequence[list[int]], max_new_tokens: int
    ) -> Iterator[dict[int, str]]:
        """Generate one side's answers; yields one dictionary per batch, from the prompt's index to its answer.

        Args:
            side: name of the side.
            prompts: token ids.
            max_new_tokens: maximum length of an answer, in tokens.

        Raises:
            StageError: a process failed or died.
        """
        shares = deque(share(prompts, len(self._processes)))
        idle, busy = list(self._processes), dict[Connection, list[int]]()
        while shares or busy:
            while shares and idle:
                connection, indices = idle.pop(), shares.popleft()
                self._send(connection, Task(side, [prompts[index] for index in indices], max_new_tokens))
                busy[connection] = indices
            ready = wait(list(busy))
            for connection in [candidate for candidate in busy if candidate in ready]:
                texts = self._receive(connection)
                if texts is None:
                    del busy[connection]
                    idle.append(connection)
                else:
                    yield {busy[connection][index]: text for index, text in texts.items()}

    def _send(self, connection: Connection, task: Task) -> None:
        try:
            connection.send(task)
        except BrokenPipeError:
            raise self._died(connection) from None

    def _receive(self, connection: Connection) -> dict[int, str] | None:
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


def share(prompts: Sequence[list[int]], processes: int) -> list[list[int]]:
    """Indices of the prompts of each task: tasks of equal size, an equal number for each process, longest first."""
    order = longest_first(prompts)
    if not order:
        return []
    rounds = math.ceil(len(order) / (processes * MAX_ROWS))
    size = math.ceil(len(order) / (processes * rounds))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _serve(connection: Connection, sides: VerifiedSides, memory: AnswerMemory, placement: Placement) -> None:
    """Answer tasks until the connection is closed."""
    if placement.gpus:
        # What names no device uses this one, instead of memory of the first GPU in every process.
        torch.cuda.set_device(placement.gpus[0])
    models = SideModels(sides, memory, placement)
    while True:
        try:
            task: Task = connection.recv()
        except EOFError:
            return
        connection.send(_answer(models, task, connection))


def _answer(models: SideModels, task: Task, connection: Connection) -> Failure | None:
    """Send the answers of each batch; the failure, if there is one."""
    try:
        for texts in models.answer(*task):
            connection.send(texts)
    except Exception as error:  # the outermost frame of a task
        traceback.print_exc()
        return describe(error)
    return None
