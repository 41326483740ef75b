"""The data report of rows that were measured and split."""

from collections.abc import Sequence

import numpy as np

from tunesmith_contract.report import DatasetReport
from tunesmith_contract.run_config import PrepareConfig

from .findings import Issue, Place, Severity, excerpt
from .histogram import build_histogram
from .measuring import Measured
from .report import MAX_DROPPED, Counts, DataReport, Dropped, FileReport
from .texts import answer_text, turns


def describe_data(config: PrepareConfig, measured: Sequence[Measured], dataset: DatasetReport) -> DataReport:
    """What prepare found, as one document."""
    rows = [row.row for each in measured for row in each.source.rows]
    return DataReport(
        title=config.owner.name,
        model=config.base_model,
        method=config.method.key,
        format=dataset.format,
        digest=dataset.digest,
        files=tuple(
            FileReport(
                name=each.source.name,
                format=each.source.data_format,
                rows=len(each.source.rows) + len(each.source.refused),
                refused=len(each.source.refused),
            )
            for each in measured
        ),
        counts=Counts(
            rows=dataset.rows,
            train=dataset.train_rows,
            validation=dataset.validation_rows,
            duplicates=dataset.duplicates,
            dropped=dataset.dropped_rows,
        ),
        truncated_rows=dataset.truncated_rows,
        max_length=config.method.max_length,
        tokens=build_histogram(np.array([length for each in measured for length in each.lengths], dtype=int)),
        answer_characters=build_histogram(np.array([len(answer_text(row)) for row in rows], dtype=int)),
        turns=build_histogram(np.array([turns(row) for row in rows], dtype=int)),
        issues=tuple(_warning(warning) for warning in dataset.warnings),
        dropped=tuple(_dropped(measured))[:MAX_DROPPED],
    )


def _warning(text: str) -> Issue:
    message, _, advice = text.partition(": ")
    return Issue(check="warning", severity=Severity.WARNING, rows=0, message=message, advice=advice)


def _dropped(measured: Sequence[Measured]) -> list[Dropped]:
    return [
        Dropped(
            place=Place(file=each.source.name, line=refused.line),
            reasons=tuple(map(str, refused.findings)),
            excerpt=excerpt(str(refused.row)),
        )
        for each in measured
        for refused in each.source.refused
        if refused.findings
    ]
