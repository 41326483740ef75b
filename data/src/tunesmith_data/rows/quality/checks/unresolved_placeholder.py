"""Check ``unresolved_placeholder``: template placeholders that nobody filled in."""

import re

from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import FlaggedRows, IssueDraft
from tunesmith_data.rows.quality.quality_check import Flag, RowCheck, warn_unless_common
from tunesmith_data.rows.quality.row_views import RowView
from tunesmith_data.rows.schema.row_texts import texts

_BRACES = re.compile(r"\{\{\s*[\w.\- ]{1,40}\s*\}\}")
_BRACKETS = re.compile(
    r"\[(?:(?:insert|your|enter|add|fill in)[ _][^\[\]\n]{1,40}|placeholder|todo"
    r"|(?:company|customer|first|last)[ _]name)\]"
    r"|<(?:insert|your)[ _][^<>\n]{1,40}>",
    re.IGNORECASE,
)
_LOREM = re.compile(r"lorem ipsum", re.IGNORECASE)


class UnresolvedPlaceholder(RowCheck):
    """``unresolved_placeholder``: ``{{name}}``, ``[INSERT NAME]``, ``<your company>``, lorem ipsum."""

    def flag(self, row: RowView) -> Flag | None:
        """Flag of the first placeholder."""
        for text in texts(row.record.row):
            if placeholder := _find_placeholder(text):
                return Flag(f"the text contains {placeholder!r}")
        return None

    def draft_issue(self, flagged: FlaggedRows, columns: Columns) -> IssueDraft:
        """Warning for a few placeholders, which are mistakes; a note for many, which are templates."""
        return warn_unless_common(
            "unresolved_placeholder",
            flagged,
            columns,
            problem="contain a placeholder that nobody filled in",
            advice="fill the placeholders in, or leave these rows out: the model learns to write them",
            advice_if_common="if the model is to write templates, ignore this; else fill the placeholders in",
        )


def _find_placeholder(text: str) -> str:
    """First placeholder in a text; a cheap character test skips most texts."""
    for pattern, needed in ((_BRACES, "{{"), (_BRACKETS, "["), (_BRACKETS, "<"), (_LOREM, "psum")):
        if needed in text and (match := pattern.search(text)):
            return match.group()
    return ""
