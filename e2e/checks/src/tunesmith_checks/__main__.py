"""Command line of the test runner: ``python -m tunesmith_checks`` runs all checks and prints times and counts.

Each stage is a target of the Makefile and can be run alone. A stage that fails does not hide the others.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from types import FrameType

from tunesmith_checks.paths import COVERAGE, COVERAGE_ENVIRONMENT, RESULTS, ROOT
from tunesmith_checks.processes import StageProcess
from tunesmith_checks.results import Case, read_cases
from tunesmith_checks.runner import Result, Runner, format_result
from tunesmith_checks.schedule import STAGES, Capacity, Stage

SLOWEST_TESTS = 20
SECONDS_BETWEEN_LOOKS = 0.5


def main() -> int:
    """Run the stages; the exit code is 1 if any failed, or if coverage fell below a floor."""
    for folder in (RESULTS, COVERAGE):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    started = time.monotonic()
    runner = Runner(
        _start, time.monotonic, lambda: time.sleep(SECONDS_BETWEEN_LOOKS), partial(print, flush=True)
    )
    results = runner.run(STAGES, _measure_capacity())
    coverage = subprocess.run(["make", "--no-print-directory", "coverage-check"], cwd=ROOT, check=False)
    cases = read_cases(RESULTS)
    _report(results, cases, time.monotonic() - started)
    return int(any(result.code for result in results) or coverage.returncode != 0)


def _start(stage: Stage) -> StageProcess:
    environment = {**os.environ, **COVERAGE_ENVIRONMENT}
    return StageProcess(stage, ROOT, RESULTS / f"{stage.name}.log", environment)


def _measure_capacity() -> Capacity:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Capacity(len(os.sched_getaffinity(0)), memory / 1e9)


def _interrupt(number: int, _: FrameType | None) -> None:
    # Once is enough: a second signal must not cut the clean-up short.
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)
    print("\ninterrupted: ending the running stages", flush=True)
    sys.exit(128 + number)


def _report(results: list[Result], cases: list[Case], seconds: float) -> None:
    print("\nSlowest tests:")
    for case in sorted(cases, key=lambda case: -case.seconds)[:SLOWEST_TESTS]:
        print(f"{case.seconds:8.1f} s  {case.name}")
    print("\nStages, slowest first:")
    for result in sorted(results, key=lambda result: -result.seconds):
        print(format_result(result))
    print(f"{seconds:8.1f} s  in all")
    counts = {
        outcome: sum(case.outcome == outcome for case in cases) for outcome in ("passed", "failed", "skipped")
    }
    print("\n" + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
