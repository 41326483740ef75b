"""Check ``encoding_damage``: texts that were decoded with the wrong encoding."""

import re

from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import FlaggedRows, IssueDraft, share_of
from tunesmith_data.rows.quality.quality_check import Flag, RowCheck
from tunesmith_data.rows.quality.row_views import RowView
from tunesmith_data.rows.schema.row_texts import texts

#: The bytes 80 to BF, the second ones of UTF-8, as Windows-1252 and Latin-1 read them.
_SECOND = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"  # noqa: RUF001 - these characters are what damage looks like
_DAMAGE = re.compile(rf"\ufffd|[ÃÂ][{_SECOND}]|â[€‚„†][{_SECOND}]|ï»¿|ðŸ[{_SECOND}]")  # noqa: RUF001
_AROUND = 12


class EncodingDamage(RowCheck):
    """``encoding_damage``: ``Ã¼`` where ``ü`` was meant, ``â€`` before odd signs, and the replacement character."""

    def flag(self, row: RowView) -> Flag | None:
        """Flag of the first damaged character, with its surroundings."""
        for text in texts(row.record.row):
            if not text.isascii() and (match := _DAMAGE.search(text)):
                around = text[max(0, match.start() - _AROUND) : match.end() + _AROUND]
                return Flag(f"the text contains {around!r}")
        return None

    def draft_issue(self, flagged: FlaggedRows, columns: Columns) -> IssueDraft:
        """Warning for any flagged row."""
        return IssueDraft(
            check="encoding_damage",
            severity=Severity.WARNING,
            message=f"{share_of(flagged.count, columns.rows)} contain characters from a wrong encoding",
            advice="export the rows again as UTF-8, or repair them (ftfy does)",
            flagged=flagged,
        )
