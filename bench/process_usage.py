"""Processor time and memory of processes, as Linux tells them."""

import os
from pathlib import Path


def processor_seconds(pid: int) -> float:
    """Processor seconds that the process has used, of the user and of the system."""
    times = (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> dict[str, float]:
    """Resident memory in MiB: now, and at its peak."""
    lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    names = {"residentMiB": "VmRSS", "peakMiB": "VmHWM"}
    return {name: round(int(fields[field].split()[0]) / 1024, 1) for name, field in names.items()}


def proportional_mib(pid: int) -> float:
    """Memory in MiB that the process holds, with its part of what it shares with others."""
    lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    fields = dict(line.split(":", 1) for line in lines)
    return round(int(fields["Pss"].split()[0]) / 1024, 1)
