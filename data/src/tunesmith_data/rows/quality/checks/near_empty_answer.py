"""Check ``near_empty_answer``: answers without content."""

import unicodedata

import numpy as np

from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.quality.arrays import Mask, Positions
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import FlaggedRows, IssueDraft, share_of
from tunesmith_data.rows.quality.quality_check import Flag, RowCheck
from tunesmith_data.rows.quality.row_views import RowView, normalized

#: Texts that people and exports write where there is no answer.
_PLACEHOLDERS = frozenset(
    {
        "n/a", "na", "nan", "none", "null", "nil", "todo", "tbd", "fixme", "undefined", "unknown", "empty", "idk",
        "asdf", "test", "no answer", "no response", "no idea", "not available", "not applicable", "not sure",
        "i'm not sure", "i am not sure", "i don't know", "i dont know", "i do not know", "keine ahnung",
        "keine angabe", "k.a", "weiß nicht", "ich weiß es nicht", "no sé", "je ne sais pas",
    }
)  # fmt: skip
_LONGEST = 40
#: Median length of answers from which answers of one or two characters are flagged.
_USUAL_CHARACTERS = 12
#: From this share of all rows on, they are the norm.
_NORM = 0.1
_SHORT, _NOTHING = 0.7, 1.0


class NearEmptyAnswer(RowCheck):
    """``near_empty_answer``: one or two characters, punctuation alone, or a placeholder such as ``N/A``.

    What is a class of its own (``yes``, ``3``, ``None``) is no fault, nor are short answers where most are short.
    """

    def flag(self, row: RowView) -> Flag | None:
        """Flag of a near-empty answer."""
        if row.calls or len(row.learned) > _LONGEST:
            return None
        text = row.learned.strip()
        if not text:
            return None
        if normalized(text).rstrip(" .!") in _PLACEHOLDERS:
            return Flag(f"the answer is the placeholder {text!r}", _NOTHING)
        if all(unicodedata.category(character)[0] in "PZC" for character in text):
            return Flag(f"the answer is punctuation alone: {text!r}", _NOTHING)
        return Flag(f"the answer is {text!r}", _SHORT) if len(text) <= 2 else None

    def select(self, positions: Positions, columns: Columns) -> Mask:
        """Mask without rows that are normal for this data."""
        kept = np.ones(len(positions), dtype=bool)
        if columns.classes:
            kept &= columns.classes.codes[positions] < 0
        short = self._flags.scores < _NOTHING
        answered = columns.answer_characters[columns.answer != 0]
        usual = bool(len(answered)) and np.median(answered) < _USUAL_CHARACTERS
        if usual or (kept & short).sum() > _NORM * len(answered):
            kept &= ~short
        return kept

    def draft_issue(self, flagged: FlaggedRows, columns: Columns) -> IssueDraft:
        """Warning for any flagged row."""
        count = share_of(flagged.count, columns.rows)
        return IssueDraft(
            check="near_empty_answer",
            severity=Severity.WARNING,
            message=f"{count} have a near-empty answer: one or two characters, punctuation, or a placeholder",
            advice="write the answers, or leave these rows out: the model learns to answer like that",
            flagged=flagged,
        )
