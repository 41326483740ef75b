"""Pool of worked examples of a run."""

from collections.abc import Sequence

from tunesmith_contract.layout import TRAIN_FILE
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.sources import DataFormat
from tunesmith_data.failures import UserError
from tunesmith_data.pod.storage import Storage
from tunesmith_data.rows.findings import Finding
from tunesmith_data.rows.reading import InvalidRow, RowSource, raise_findings
from tunesmith_data.rows.schema.formats import EVALUATION, Row
from tunesmith_data.rows.table.parquet import read_rows
from tunesmith_evaluation.items.examples import ExamplePool
from tunesmith_evaluation.items.item import EvaluationItem

from .suites import LoadedSuite

#: Worked examples by name of the suite, as many as the side with the most of them shows.
Examples = dict[str, list[EvaluationItem]]


def draw_examples(config: EvaluateConfig, suites: Sequence[LoadedSuite], storage: Storage) -> Examples:
    """Examples of each suite of own data; a side shows the first of them. Safety suites and tasks have none.

    Raises:
        UserError: a side shows examples, and there are none to draw from.
        DataError: a row of them fails a check.
    """
    count = max(side.few_shot for side in config.sides)
    if count == 0:
        return {suite.name: [] for suite in suites}
    if config.few_shot_from is None:
        message = "fewShot asks for examples, but the run names no rows to draw them from: write fewShotFrom"
        raise UserError("NoExamples", message)
    rows = _read_pool(config.few_shot_from, storage)
    pool = ExamplePool(rows, [item for suite in suites for item in suite.rows], config.seed)
    return {suite.name: pool.draw(count, suite.sampled) if suite.is_own_data else [] for suite in suites}


def _read_pool(uri: str, storage: Storage) -> list[Row]:
    """Rows that data preparation left for training, or rows with answers in files."""
    if uri.endswith(f"/{TRAIN_FILE}"):
        return read_rows(storage.dataset_file(uri))
    rows: list[Row] = []
    findings: list[Finding] = []
    for row in RowSource(storage.dataset_files(uri), DataFormat.AUTO, EVALUATION):
        if isinstance(row, InvalidRow):
            findings += row.findings
        else:
            rows.append(row.row)
    if findings:
        raise_findings(findings)
    return rows
