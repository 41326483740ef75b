"""Paths of the checkout and of a test run's results."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
RESULTS = ROOT / "build" / "test-results"
COVERAGE = ROOT / "build" / "coverage"
# Read by coverage in each Python process, and by its configuration.
COVERAGE_ENVIRONMENT = {
    "COVERAGE_PROCESS_START": str(ROOT / ".coveragerc"),
    "TUNESMITH_CHECKOUT": str(ROOT),
}
