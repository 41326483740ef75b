"""Counter of out-of-memory kills in the container's cgroup."""

from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
_COUNTER_FILES = ("memory.events", "memory/memory.oom_control", "memory.oom_control")


def count_oom_kills(root: Path = CGROUP_ROOT) -> int:
    """Number of processes of this container that the kernel's OOM killer has ended.

    Read from ``memory.events`` (cgroup v2) or ``memory.oom_control`` (v1); 0 if neither exists.
    """
    for name in _COUNTER_FILES:
        try:
            text = (root / name).read_text()
        except OSError:
            continue
        counters = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)
        if "oom_kill" in counters:
            return int(counters["oom_kill"])
    return 0
