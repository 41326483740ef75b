"""Learning rates around `Auto` on two tasks: which one ends at the lowest validation loss.

Writes each trial to ``bench/results/learning-rate.json`` as it ends, and leaves out those that are there already.
SmolLM2-135M-Instruct on the quickstart's bookings and on questions to SQL; a Llama of 0.9 million parameters, trained
on the spot in the opposite direction of the task, for the trends over rank, alpha, steps and batch.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from small_base import make_base
from tasks import make_sql_rows, opposite, read_bookings
from training import Base, Task, Trial, run_trial

RESULT = Path(__file__).resolve().parents[1] / "results/learning-rate.json"
SMOLLM2 = "SmolLM2-135M-Instruct"
SQL_ROWS = 2000
TASKS = {"sql": lambda: make_sql_rows(SQL_ROWS), "bookings": read_bookings}

SMALL = "llama-128"
SMALL_ADAPTER_RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SMALL_FULL_RATES = (2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3, 6.4e-3)


def smollm2_trials() -> Iterator[Trial]:
    """Questions to SQL in 40 steps of 8 rows, and the quickstart as it is: 60 steps of 4 rows."""
    yield from (Trial(SMOLLM2, "sql", 16, 32, 40, 8, rate) for rate in (2e-4, 5e-4, 1e-3, 2e-3))
    yield from (Trial(SMOLLM2, "bookings", 16, 32, 60, 4, rate) for rate in (2e-4, 7e-4, 2e-3))


def small_trials() -> Iterator[Trial]:
    """Ranks, alphas, batches and steps of the Llama that is trained on the spot."""
    yield from (Trial(SMALL, "sql", 16, 32, 40, 8, rate) for rate in SMALL_ADAPTER_RATES)
    yield from (Trial(SMALL, "sql", None, None, 40, 8, rate) for rate in SMALL_FULL_RATES)
    for rank, alpha in ((4, 8), (64, 128)):
        yield from (Trial(SMALL, "sql", rank, alpha, 40, 8, rate) for rate in SMALL_ADAPTER_RATES)
    yield from (Trial(SMALL, "sql", 64, 32, 40, 8, rate) for rate in SMALL_ADAPTER_RATES[:4])
    for steps, batch in ((160, 2), (10, 8)):
        yield from (Trial(SMALL, "sql", 16, 32, steps, batch, rate) for rate in SMALL_ADAPTER_RATES)


class Results:
    """Finished trials, in a file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = json.loads(path.read_text())["trials"] if path.exists() else []

    def has(self, trial: Trial) -> bool:
        """True for a trial that is in the file."""
        return any(row | asdict(trial) == row for row in self._rows)

    def add(self, row: dict[str, Any]) -> None:
        """Write one more trial."""
        self._rows.append(row)
        lines = ",\n".join(json.dumps(entry) for entry in self._rows)
        self._path.write_text(f'{{"trials": [\n{lines}\n]}}\n')


def run(trials: Iterable[Trial], base: Base, results: Results) -> None:
    """Run those that are not in the results."""
    tasks: dict[str, Task] = {}
    for trial in trials:
        if results.has(trial):
            continue
        if trial.task not in tasks:
            tasks[trial.task] = Task(base.tokenizer, TASKS[trial.task]())
        row = run_trial(base, tasks[trial.task], trial)
        results.add(row)
        print(json.dumps(row), flush=True)


def main() -> None:
    """Run the trials that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smollm2", type=Path, help="its folder, made by `python -m tunesmith_images model`")
    parser.add_argument("--small", action="store_true", help="the Llama that is trained on the spot")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(options.output)
    if options.smollm2:
        run(smollm2_trials(), Base(options.smollm2), results)
    if options.small:
        with tempfile.TemporaryDirectory() as folder:
            run(small_trials(), make_base(Path(folder), opposite(make_sql_rows(SQL_ROWS, seed=1))), results)


if __name__ == "__main__":
    main()
