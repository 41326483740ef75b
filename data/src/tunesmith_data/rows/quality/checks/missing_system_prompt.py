"""Check ``missing_system_prompt``: rows without the system message that the others have."""

from collections.abc import Iterator

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import IssueDraft, percent, share_of
from tunesmith_data.rows.quality.quality_check import ColumnCheck

#: Share of the rows that have the same system message.
_NORM = 0.8


class MissingSystemPrompt(ColumnCheck):
    """``missing_system_prompt``: at least 80 % of the rows share a system message, and these have none."""

    def finish(self, columns: Columns) -> Iterator[IssueDraft]:
        """Issue drafts from the columns."""
        _, counts = np.unique(columns.system[columns.system != 0], return_counts=True)
        without = np.flatnonzero(columns.system == 0)
        if not len(without) or not len(counts) or counts.max() < _NORM * columns.rows:
            return
        flagged = columns.rank(without)
        yield IssueDraft(
            check="missing_system_prompt",
            severity=Severity.WARNING,
            message=f"{share_of(len(without), columns.rows)} have no system message, "
            f"while {percent(counts.max() / columns.rows)} share one",
            advice="give all rows the system message that the model will be used with",
            flagged=flagged,
            details={int(position): "no system message" for position in flagged.positions[:MAX_EXAMPLES]},
        )
