"""Stages of `make test`, and the schedule by which they share the machine."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple


class Capacity(NamedTuple):
    """Cores and memory that running stages share."""

    cores: float
    gigabytes: float


class Stage(NamedTuple):
    """A target of the Makefile and its share of the machine while it runs.

    cores: the share of the cores that is kept for it. Stages that wait for pods take little.
    gigabytes: the peak of memory.
    after: stages that must have ended first, well or not.
    niceness: stages with time limits on real processes have 0; the others give way to them.
    """

    name: str
    cores: float
    gigabytes: float
    after: tuple[str, ...] = ()
    niceness: int = 0


# In the order of priority: the longest first, beside others that fit. A stage's cores are somewhat below what it was
# measured to use, for it waits now and then, and a core that nobody uses is lost. Those of stages with a single process
# that takes up to one core are so low that three run side by side once the first ones have ended: of two, one is left
# alone in the end. The processes of pods count for no stage: with them, that of real pods takes about half a core.
STAGES = (
    Stage("setup-tools", 1.0, 1),
    Stage("setup-cluster", 1.5, 4, after=("setup-tools",)),
    Stage("setup-trainer", 0.5, 1, after=("setup-tools",)),
    Stage("images-cpu", 1.0, 2, after=("setup-cluster", "setup-trainer")),
    Stage("test-e2e", 0.3, 8, after=("images-cpu",)),
    Stage("test-trainer", 0.6, 5, after=("setup-trainer", "setup-cluster"), niceness=5),
    Stage("test-control-plane", 0.6, 4, after=("setup-cluster",)),
    Stage("test-engine", 0.5, 5, after=("setup-trainer",), niceness=2),
    Stage("test-unit", 0.5, 1, after=("setup-cluster",), niceness=5),
    Stage("test-data", 0.5, 3, after=("setup-trainer", "setup-cluster"), niceness=5),
    Stage("test-evaluation", 0.5, 3, after=("setup-trainer", "setup-cluster"), niceness=5),
    Stage("test-image", 0.7, 6, after=("images-cpu",), niceness=2),
    Stage("lint", 0.6, 1, after=("setup-trainer",), niceness=5),
    Stage("test-compiled", 0.6, 1, after=("setup-cluster",), niceness=5),
    Stage("test-storage", 0.5, 1, after=("setup-cluster",), niceness=2),
)


def choose(waiting: Sequence[Stage], running: Iterable[Stage], capacity: Capacity) -> list[Stage]:
    """The stages to start now, in the order of `waiting`.

    A stage that does not fit beside the running ones lets smaller ones pass. One that takes more than the whole machine
    runs alone.
    """
    active = list(running)
    chosen: list[Stage] = []
    for stage in waiting:
        unfinished = {other.name for other in (*waiting, *active, *chosen)}
        if unfinished.isdisjoint(stage.after) and (not active or _fits(stage, active, capacity)):
            chosen.append(stage)
            active.append(stage)
    return chosen


def _fits(stage: Stage, active: Collection[Stage], capacity: Capacity) -> bool:
    cores = stage.cores + sum(other.cores for other in active)
    gigabytes = stage.gigabytes + sum(other.gigabytes for other in active)
    # Shares are decimals: three times 0.1 must fit into 0.3.
    return cores <= capacity.cores + 1e-9 and gigabytes <= capacity.gigabytes
