"""How a file that can't be read ends the run."""

import errno
from collections.abc import Sequence
from typing import NoReturn

from tunesmith_data.failures import DataError
from tunesmith_data.rows.findings import Finding, Problem

SHOWN_FINDINGS = 5


class Unreadable(Exception):
    """The rest of a file can't be read, so that rows would be lost: no finding that a run may go on with.

    Args:
        problem: what was found.
        line: where; None: at the last line that was read.
        name: of the member of an archive, where it has not been opened yet.
    """

    def __init__(self, problem: Problem, line: int | None = None, name: str | None = None) -> None:
        super().__init__(problem.check)
        self.problem = problem
        self.line = line
        self.name = name


def is_of_disk(error: Exception) -> bool:
    """Whether reading failed for a reason that is not the file's: parsers of archives raise OSError too.

    EINVAL is theirs: a damaged file told them to look where nothing can be.
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
