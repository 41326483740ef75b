"""Errors of unreadable files, and the failure that findings become."""

import errno
from collections.abc import Sequence
from typing import NoReturn

from tunesmith_data.failures import DataError
from tunesmith_data.rows.findings import Finding

SHOWN_FINDINGS = 5


class UnreadableFile(Exception):
    """A file cannot be read to its end; the run fails, since rows would be lost.

    Args:
        finding: what was found.
        line: where; None: at the last line that was read.
        name: name of the member of an archive that has not been opened yet.
    """

    def __init__(self, finding: Finding, line: int | None = None, name: str | None = None) -> None:
        super().__init__(finding.check)
        self.finding = finding
        self.line = line
        self.name = name


def is_disk_error(error: Exception) -> bool:
    """True if an error comes from the disk, not from the file: archive parsers raise OSError too.

    EINVAL is theirs too: a damaged file contains an impossible offset.
    """
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def raise_findings(
    findings: Sequence[Finding], reason: str = "InvalidRows", *, count: int | None = None
) -> NoReturn:
    """Fail with the first findings and their total.

    Args:
        count: how many there are, where ``findings`` are only the first.

    Raises:
        DataError: always.
    """
    shown = "\n".join(str(finding) for finding in findings[:SHOWN_FINDINGS])
    count = len(findings) if count is None else count
    more = f"\nand {count - SHOWN_FINDINGS:,} more" if count > SHOWN_FINDINGS else ""
    checks = "1 check" if count == 1 else f"{count:,} checks"
    raise DataError(reason, f"{checks} failed:\n{shown}{more}")
