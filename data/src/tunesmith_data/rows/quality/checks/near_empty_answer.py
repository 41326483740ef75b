"""Answers that say nothing."""

import unicodedata

import numpy as np

from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.quality.array_types import Mask, Positions
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.evidence import Evidence, Suspects, share_of
from tunesmith_data.rows.quality.quality_check import Look, RowCheck
from tunesmith_data.rows.quality.row_views import RowView, normalised

#: What people and exports write where there is no answer.
_PLACEHOLDERS = frozenset(
    {
        "n/a", "na", "nan", "none", "null", "nil", "todo", "tbd", "fixme", "undefined", "unknown", "empty", "idk",
        "asdf", "test", "no answer", "no response", "no idea", "not available", "not applicable", "not sure",
        "i'm not sure", "i am not sure", "i don't know", "i dont know", "i do not know", "keine ahnung",
        "keine angabe", "k.a", "weiß nicht", "ich weiß es nicht", "no sé", "je ne sais pas",
    }
)  # fmt: skip
_LONGEST = 40
#: Answers of one or two characters are odd where most others are at least this long.
_USUAL_CHARACTERS = 12
#: From this share of all rows on, they are the norm.
_NORM = 0.1
_SHORT, _NOTHING = 0.7, 1.0


class NearEmptyAnswer(RowCheck):
    """``near_empty_answer``: one or two characters, punctuation alone, or a placeholder such as ``N/A``.

    What is a class of its own (``yes``, ``3``, ``None``) is no fault, nor are short answers where most are short.
    """

    def look(self, row: RowView) -> Look | None:
        """Whether the answer is nearly nothing."""
        if row.calls or len(row.learned) > _LONGEST:
            return None
        text = row.learned.strip()
        if not text:
            return None
        if normalised(text).rstrip(" .!") in _PLACEHOLDERS:
            return Look(f"the answer is the placeholder {text!r}", _NOTHING)
        if all(unicodedata.category(each)[0] in "PZC" for each in text):
            return Look(f"the answer is punctuation alone: {text!r}", _NOTHING)
        return Look(f"the answer is {text!r}", _SHORT) if len(text) <= 2 else None

    def select(self, positions: Positions, columns: Columns) -> Mask:
        """Without those that are the norm here."""
        kept = np.ones(len(positions), dtype=bool)
        if columns.classes:
            kept &= columns.classes.codes[positions] < 0
        short = np.array(self._scores) < _NOTHING
        answered = columns.answer_characters[columns.answer != 0]
        usual = bool(len(answered)) and np.median(answered) < _USUAL_CHARACTERS
        if usual or (kept & short).sum() > _NORM * len(answered):
            kept &= ~short
        return kept

    def judge(self, suspects: Suspects, columns: Columns) -> Evidence:
        """Any of them is one too many."""
        count = share_of(suspects.count, columns.rows)
        return Evidence(
            check="near_empty_answer",
            severity=Severity.WARNING,
            message=f"{count} have an answer that says nothing: one or two characters, punctuation, or a placeholder",
            advice="write the answers, or leave these rows out: the model learns to answer like that",
            suspects=suspects,
        )
