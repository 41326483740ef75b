"""Memory of the container's cgroup: its limit, what is used of it, and the counter of out-of-memory kills."""

from pathlib import Path

import psutil

CGROUP_ROOT = Path("/sys/fs/cgroup")
_COUNTER_FILES = ("memory.events", "memory/memory.oom_control", "memory.oom_control")

#: Limit, usage, statistics and the statistic of reclaimable file pages: of cgroup v2, then of v1.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def count_oom_kills(root: Path = CGROUP_ROOT) -> int:
    """Number of processes of this container that the kernel's OOM killer has ended.

    Read from ``memory.events`` (cgroup v2) or ``memory.oom_control`` (v1); 0 if neither exists.
    """
    for name in _COUNTER_FILES:
        try:
            counters = _read_counters(root / name)
        except OSError:
            continue
        if "oom_kill" in counters:
            return counters["oom_kill"]
    return 0


def free_host_memory(root: Path = CGROUP_ROOT) -> int:
    """Host memory that this container can still take, in bytes: of the node, and within the container's limit.

    File pages that the kernel drops when memory is short, such as those of weights that were read, count as free.
    """
    free = int(psutil.virtual_memory().available)
    for limit_file, usage_file, statistics_file, reclaimable in _MEMORY_FILES:
        try:
            limit, usage = ((root / name).read_text().strip() for name in (limit_file, usage_file))
            statistics = _read_counters(root / statistics_file)
        except OSError:
            continue
        if limit.isdigit():
            free = min(free, int(limit) - int(usage) + statistics.get(reclaimable, 0))
    return max(0, free)


def _read_counters(path: Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}
