"""Quality checks over the rows that are kept, and statistics of their lengths."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunesmith_contract.report import ModelReport
from tunesmith_contract.run_config import PersonalData as PersonalDataPolicy
from tunesmith_contract.run_config import PrepareConfig
from tunesmith_data.rows.clean.personal_data import PersonalDataCheck
from tunesmith_data.rows.findings import Example, Issue, Severity
from tunesmith_data.rows.quality import QualitySurvey
from tunesmith_data.rows.report.data_report import LearningCurve, Recommendation
from tunesmith_data.rows.schema.row_texts import answer_text, turns
from tunesmith_data.rows.table.record import RowSide
from tunesmith_data.rows.table.row_store import RowStore
from tunesmith_data.rows.table.split import SIDE_CODES

from .cleaning import CleaningResult
from .cleaning_issues import cleaning_issues

_ORDER = list(Severity)


@dataclass(frozen=True, slots=True)
class RowQuality:
    """Issues and statistics of the kept rows; the members are those of the data report.

    Attributes:
        answer_characters, turns: characters of the answer and number of turns of each kept row.
    """

    issues: tuple[Issue, ...]
    worst: tuple[Example, ...]
    learning_curve: LearningCurve | None
    recommendation: Recommendation | None
    answer_characters: npt.NDArray[np.int64]
    turns: npt.NDArray[np.int64]


def check_quality(
    store: RowStore,
    cleaned: CleaningResult,
    config: PrepareConfig,
    model: ModelReport,
    personal: PersonalDataCheck | None,
    report_rows: Callable[[int, int], None],
) -> RowQuality:
    """Run all checks over the kept rows, in one pass.

    Args:
        personal: the check of personal data; if rows are masked, it has already recorded them.
        report_rows: called with the number of rows done, and the total.
    """
    kept = np.flatnonzero(np.isin(cleaned.sides, (SIDE_CODES[RowSide.TRAIN], SIDE_CODES[RowSide.VALIDATION])))
    survey = QualitySurvey(config.method.key, store.take)
    characters, counted = array("l"), array("l")
    done = 0
    for batch in store.batches(kept):
        survey.update(batch)
        if personal is not None and config.personal_data is not PersonalDataPolicy.MASK:
            personal.update(batch)
        characters.extend(len(answer_text(record.row)) for record in batch)
        counted.extend(turns(record.row) for record in batch)
        done += len(batch)
        report_rows(done, len(kept))
    quality = survey.finish(model)
    issues = [*(quality.issues if quality else ()), *cleaning_issues(cleaned, config)]
    issues += personal.finish() if personal is not None else ()
    return RowQuality(
        issues=tuple(sorted(issues, key=by_severity)),
        worst=quality.worst if quality else (),
        learning_curve=quality.learning_curve if quality else None,
        recommendation=quality.recommendation if quality else None,
        answer_characters=np.array(characters, dtype=np.int64),
        turns=np.array(counted, dtype=np.int64),
    )


def by_severity(issue: Issue) -> tuple[int, int, str]:
    """Sort key: most severe first, then most rows."""
    return _ORDER.index(issue.severity), -issue.rows, issue.check
