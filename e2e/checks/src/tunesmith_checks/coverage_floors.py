"""Branch coverage per folder of product code, with minimum values.

`python -m tunesmith_checks.coverage_floors check` combines what a test run measured and prints each folder; the exit
code is 1 where one is below its floor. `raise` lifts the floors to what that run covered.
"""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import coverage
from coverage.exceptions import CoverageException

from tunesmith_checks.paths import COVERAGE, COVERAGE_ENVIRONMENT, ROOT

FLOORS = ROOT / "e2e" / "checks" / "coverage-floors.json"
WHOLE = "."
# What depends on timing comes and goes: a percent of a large folder, a statement and its branch of a small one.
TOLERANCE_PERCENT = 1.0
TOLERANCE_COUNT = 2


@dataclass(frozen=True)
class Covered:
    """Statements and branches: how many ran, of how many."""

    ran: int
    total: int

    def __add__(self, other: "Covered") -> "Covered":
        return Covered(self.ran + other.ran, self.total + other.total)

    @property
    def percent(self) -> float:
        """Percent that ran; an empty folder is whole."""
        return 100 * self.ran / self.total if self.total else 100.0


def group_by_folder(files: Mapping[str, Covered]) -> dict[str, Covered]:
    """Coverage of each folder and of the whole, from that of files by their path in the checkout."""
    folders: dict[str, Covered] = {}
    for path, covered in files.items():
        for folder in (str(Path(path).parent), WHOLE):
            folders[folder] = folders.get(folder, Covered(0, 0)) + covered
    return dict(sorted(folders.items()))


def find_floor(folder: str, floors: Mapping[str, float]) -> float:
    """The floor of a folder: its own, or that of the nearest folder above it, as folders are split and moved."""
    own = (folder, *(str(parent) for parent in Path(folder).parents))
    return next((floors[name] for name in own if name in floors), 0.0)


def find_fallen(folders: Mapping[str, Covered], floors: Mapping[str, float]) -> list[str]:
    """The folders below their floors by more than the tolerance."""
    return [name for name, covered in folders.items() if _has_fallen(covered, find_floor(name, floors))]


def _has_fallen(covered: Covered, floor: float) -> bool:
    missing = covered.total * floor / 100 - covered.ran
    return missing > max(TOLERANCE_COUNT, covered.total * TOLERANCE_PERCENT / 100)


def raise_floors(folders: Mapping[str, Covered], floors: Mapping[str, float]) -> dict[str, float]:
    """A floor for each folder there is: no lower than before, and no lower than what is covered now."""
    # Rounded down, or a folder would be below its own floor.
    return {
        name: max(find_floor(name, floors), math.floor(covered.percent * 10) / 10)
        for name, covered in folders.items()
    }


def measure() -> dict[str, Covered]:
    """Coverage of each folder by the runs whose data lies in the coverage folder.

    Raises:
        CoverageException: there is none.
    """
    os.environ |= COVERAGE_ENVIRONMENT
    measurement = coverage.Coverage(config_file=str(ROOT / ".coveragerc"))
    measurement.combine([str(COVERAGE)], keep=True)
    # A file that no test imports counts as well.
    roots = [root for pattern in ("*/src", "*/*/src") for root in ROOT.glob(pattern)]
    sources = [str(file) for root in roots for file in root.rglob("*.py")]
    measurement.get_data().touch_files(sources)
    report = COVERAGE / "report.json"
    measurement.json_report(outfile=str(report))
    files = json.loads(report.read_text())["files"]
    return group_by_folder(
        {str((ROOT / path).relative_to(ROOT)): _count(entry["summary"]) for path, entry in files.items()}
    )


def _count(summary: Mapping[str, int]) -> Covered:
    ran = summary["covered_lines"] + summary["covered_branches"]
    return Covered(ran, summary["num_statements"] + summary["num_branches"])


def print_folders(folders: Mapping[str, Covered], floors: Mapping[str, float]) -> None:
    """One line for each folder."""
    fallen = find_fallen(folders, floors)
    print("\nBranch coverage and its floor by folder:")
    for name, covered in folders.items():
        mark = "  BELOW ITS FLOOR" if name in fallen else ""
        label = "all folders" if name == WHOLE else name
        print(f"{covered.percent:7.1f} %  {find_floor(name, floors):5.1f} %  {label}{mark}")


def main(arguments: Sequence[str]) -> int:
    """Check or raise the floors; the exit code is 1 where a folder is below its floor."""
    floors: dict[str, float] = json.loads(FLOORS.read_text()) if FLOORS.exists() else {}
    try:
        folders = measure()
    except CoverageException as error:
        print(f"\nCoverage is unknown: {error}. Run `make test`, which measures it.")
        return 1
    if list(arguments) == ["raise"]:
        FLOORS.write_text(json.dumps(raise_floors(folders, floors), indent=2, sort_keys=True) + "\n")
        return 0
    print_folders(folders, floors)
    return int(bool(find_fallen(folders, floors)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
