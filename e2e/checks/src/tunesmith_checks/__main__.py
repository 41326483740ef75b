"""Run all checks and tests one after the other, then say how long each took and how many passed.

Each stage is a target of the Makefile and can be run alone. A stage that fails does not hide the ones after it.
"""

import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "test-results"
STAGES = (
    "setup",
    "lint",
    "test-unit",
    "test-storage",
    "test-trainer",
    "test-control-plane",
    "images",
    "test-engine",
    "test-e2e",
)
SLOWEST_TESTS = 10


class Stage(NamedTuple):
    """How a stage went: its wall time in seconds, and make's exit code."""

    name: str
    seconds: float
    code: int


def run_stage(name: str) -> Stage:
    """Run one target of the Makefile with its output passed through."""
    print(f"\n=== {name} ===", flush=True)
    started = time.monotonic()
    code = subprocess.run(["make", "--no-print-directory", name], cwd=ROOT, check=False).returncode
    return Stage(name, time.monotonic() - started, code)


def read_cases() -> list[ElementTree.Element]:
    """All test cases of the JUnit files that the stages wrote."""
    return [
        case for file in sorted(RESULTS.glob("*.xml")) for case in ElementTree.parse(file).iter("testcase")
    ]


def count(cases: list[ElementTree.Element]) -> tuple[int, int, int]:
    """How many cases passed, failed and were skipped."""
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    return len(cases) - failed - skipped, failed, skipped


def main() -> int:
    """Run the stages; the exit code is 1 if any failed."""
    for old in RESULTS.glob("*.xml"):
        old.unlink()
    stages = [run_stage(name) for name in STAGES]
    cases = read_cases()
    print("\nSlowest tests:")
    for case in sorted(cases, key=lambda case: -float(case.get("time", 0)))[:SLOWEST_TESTS]:
        print(f"{float(case.get('time', 0)):8.1f} s  {case.get('classname')}::{case.get('name')}")
    print("\nStages, slowest first:")
    for stage in sorted(stages, key=lambda stage: -stage.seconds):
        print(f"{stage.seconds:8.1f} s  {stage.name:20}{'ok' if stage.code == 0 else 'FAILED'}")
    passed, failed, skipped = count(cases)
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return int(any(stage.code for stage in stages))


if __name__ == "__main__":
    sys.exit(main())
