"""Ranks of a run as forked processes of a test, connected over gloo, without a launcher."""

import gc
import multiprocessing
import os
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from servers.ports import free_port

from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.distributed.control_group import end_groups
from tunesmith_trainer.train.distributed.rendezvous import join_gang, read_rendezvous

#: A rank that says nothing for so long hangs.
SECONDS = 240


def run_ranks(
    function: Callable[[int], Any],
    *,
    ranks: int = 2,
    nodes: int = 1,
    environment: Mapping[str, str] | None = None,
) -> list[Any]:
    """Results of a function that all ranks call with their number.

    Raises:
        AssertionError: a rank raised an exception; all that were raised are in the message.
    """
    context = multiprocessing.get_context("fork")
    port, per_node = str(free_port()), ranks // nodes
    started = []
    for rank in range(ranks):
        variables = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % per_node),
            "WORLD_SIZE": str(ranks),
            "LOCAL_WORLD_SIZE": str(per_node),
            "MASTER_PORT": port,
            **(environment or {}),
        }
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(function, variables, writer))
        process.start()
        writer.close()
        started.append((process, reader))
    try:
        answers = [_receive(reader) for _, reader in started]
    finally:
        for process, _ in started:
            process.kill()
            process.join()
    problems = [problem for _, problem in answers if problem]
    assert not problems, "\n".join(problems)
    return [result for result, _ in answers]


def _receive(reader: Connection) -> tuple[Any, str]:
    if not reader.poll(SECONDS):
        return None, "a rank hangs"
    result: tuple[Any, str] = reader.recv()
    return result


def _run(function: Callable[[int], Any], variables: Mapping[str, str], writer: Connection) -> None:
    gc.freeze()  # looking for garbage in what was there before would copy the memory that the ranks share
    os.environ.update(variables)
    try:
        rendezvous = read_rendezvous(os.environ)
        join_gang(rendezvous, Preemption(), on_gpu=False)
        result = function(rendezvous.rank)
        writer.send((result, ""))
    except Exception:
        writer.send((None, traceback.format_exc()))
    else:
        end_groups()
