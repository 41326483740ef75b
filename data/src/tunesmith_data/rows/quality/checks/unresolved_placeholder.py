"""Texts with places that nobody filled in."""

import re

from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.evidence import Evidence, Suspects, share_of
from tunesmith_data.rows.quality.quality_check import Look, RowCheck
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
#: From this share on, templates are what the data is about.
_NORM = 0.2


class UnresolvedPlaceholder(RowCheck):
    """``unresolved_placeholder``: ``{{name}}``, ``[INSERT NAME]``, ``<your company>``, lorem ipsum."""

    def look(self, row: RowView) -> Look | None:
        """The first place that nobody filled in."""
        for text in texts(row.record.row):
            if found := _find(text):
                return Look(f"the text holds {found!r}")
        return None

    def judge(self, suspects: Suspects, columns: Columns) -> Evidence:
        """Few are mistakes; many are templates."""
        norm = suspects.count >= _NORM * columns.rows
        return Evidence(
            check="unresolved_placeholder",
            severity=Severity.NOTE if norm else Severity.WARNING,
            message=f"{share_of(suspects.count, columns.rows)} hold a place that nobody filled in",
            advice=(
                "if the model is to write templates, all is well; else fill the places in"
                if norm
                else "fill the places in, or leave these rows out: the model learns to write them"
            ),
            suspects=suspects,
        )


def _find(text: str) -> str:
    """The first such place; most texts are told by the characters that they don't hold."""
    for pattern, needed in ((_BRACES, "{{"), (_BRACKETS, "["), (_BRACKETS, "<"), (_LOREM, "psum")):
        if needed in text and (match := pattern.search(text)):
            return match.group()
    return ""
