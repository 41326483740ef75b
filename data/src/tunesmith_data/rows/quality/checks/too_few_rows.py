"""Check ``too_few_rows``: fewer rows than the method needs."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np

from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import FlaggedRows, IssueDraft
from tunesmith_data.rows.quality.quality_check import ColumnCheck

#: Minimum rows by method, and advice on how many: rules of thumb of this project, supported by two papers.
#: KTO: n pairs are 2 n judged answers, and half of those did as well (Ethayarajh et al. 2024, arXiv:2402.01306).
#: GRPO, RLOO: 1,389 chosen prompts did as well as 8,523 (LIMR, Li et al. 2025, arXiv:2502.11886).
#: Distillation: prompts of a task, as for sft.
NEEDED: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "sft": (100, "100 to 500 good examples suit a task with LoRA"),
        "distillation": (100, "100 to 500 prompts suit a task with LoRA"),
        "pretraining": (1_000, "1,000 to 10,000 texts suit a domain"),
        "dpo": (5_000, "5,000 to 50,000 pairs suit preferences"),
        "reward": (5_000, "5,000 to 50,000 pairs suit preferences"),
        "kto": (5_000, "5,000 to 50,000 judged answers suit preferences"),
        "grpo": (500, "500 to 1,500 well-chosen prompts suit a task with exact rewards"),
        "rloo": (500, "500 to 1,500 well-chosen prompts suit a task with exact rewards"),
    }
)


class TooFewRows(ColumnCheck):
    """``too_few_rows``: fewer than the method needs, with the number."""

    def finish(self, columns: Columns) -> Iterator[IssueDraft]:
        """Issue drafts from the columns."""
        fewest, suits = NEEDED[columns.method]
        if columns.rows >= fewest:
            return
        yield IssueDraft(
            check="too_few_rows",
            severity=Severity.WARNING,
            message=f"{columns.rows:,} rows are few for {columns.method}: {suits}",
            advice=f"add at least {fewest - columns.rows:,} rows, or try examples in the prompt first",
            flagged=FlaggedRows(np.empty(0, np.int64), np.empty(0), columns.rows),
        )
