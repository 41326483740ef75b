"""What the rows that are kept say: checks of quality, and what follows for training."""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunesmith_contract.report import ModelReport
from tunesmith_contract.run_config import Deduplicate, PrepareConfig
from tunesmith_contract.run_config import PersonalData as PersonalDataPolicy
from tunesmith_data.rows.clean.personal_data import PersonalData
from tunesmith_data.rows.findings import MAX_EXAMPLES, Example, Issue, Severity
from tunesmith_data.rows.quality import Survey
from tunesmith_data.rows.report.data_report import LearningCurve, Recommendation
from tunesmith_data.rows.schema.row_texts import answer_text, turns
from tunesmith_data.rows.table.record import Side
from tunesmith_data.rows.table.row_store import RowStore
from tunesmith_data.rows.table.split import CODES

from .cleaning import Cleaned
from .leak_issues import leak_issues

_ORDER = list(Severity)


@dataclass(frozen=True, slots=True)
class Judged:
    """What there is to say of the rows; the members are those of the data report.

    Attributes:
        answer_characters, turns: of each row that is kept.
    """

    issues: tuple[Issue, ...]
    worst: tuple[Example, ...]
    learning_curve: LearningCurve | None
    recommendation: Recommendation | None
    answer_characters: npt.NDArray[np.int64]
    turns: npt.NDArray[np.int64]


def judge(
    store: RowStore,
    cleaned: Cleaned,
    config: PrepareConfig,
    model: ModelReport,
    personal: PersonalData | None,
    seen: Callable[[int, int], None],
) -> Judged:
    """Show every row that is kept to every check, once.

    Args:
        personal: the check of personal data; where rows are masked, it has been told of them.
        seen: told the number of rows done, and of all.
    """
    kept = np.flatnonzero(np.isin(cleaned.sides, (CODES[Side.TRAIN], CODES[Side.VALIDATION])))
    survey = Survey(config.method.key, store.take)
    characters, counted = array("l"), array("l")
    done = 0
    for batch in store.batches(kept):
        survey.see(batch)
        if personal is not None and config.personal_data is not PersonalDataPolicy.MASK:
            personal.see(batch)
        characters.extend(len(answer_text(record.row)) for record in batch)
        counted.extend(turns(record.row) for record in batch)
        done += len(batch)
        seen(done, len(kept))
    quality = survey.finish(model)
    issues = [*(quality.issues if quality else ()), *_cleaning_issues(cleaned, config)]
    issues += personal.finish() if personal is not None else ()
    return Judged(
        issues=tuple(sorted(issues, key=by_gravity)),
        worst=quality.worst if quality else (),
        learning_curve=quality.learning_curve if quality else None,
        recommendation=quality.recommendation if quality else None,
        answer_characters=np.array(characters, dtype=np.int64),
        turns=np.array(counted, dtype=np.int64),
    )


def by_gravity(issue: Issue) -> tuple[int, int, str]:
    """A key that sorts the gravest first, then those of most rows."""
    return _ORDER.index(issue.severity), -issue.rows, issue.check


def _cleaning_issues(cleaned: Cleaned, config: PrepareConfig) -> Iterator[Issue]:
    """What cleaning found: leaks, which are gone, and near repetitions, where they stay."""
    yield from leak_issues(cleaned)
    if cleaned.near_rows and config.deduplicate is not Deduplicate.NEAR:
        near = [cluster for cluster in cleaned.clusters if cluster.similarity < 1]
        yield Issue(
            check="near_duplicates",
            severity=Severity.NOTE,
            rows=cleaned.near_rows,
            message=f"{cleaned.near_rows:,} rows nearly repeat others",
            advice="write deduplicate: Near to leave them out",
            examples=tuple(
                Example(
                    place=cluster.rows[1],
                    excerpt=cluster.excerpt,
                    other=cluster.rows[0],
                    score=cluster.similarity,
                )
                for cluster in near[:MAX_EXAMPLES]
            ),
        )
