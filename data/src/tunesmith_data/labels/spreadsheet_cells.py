"""Text in the cells of a spreadsheet: never run as a formula, and read back as it was."""

import re

# OWASP's list for CSV injection; the last four are full-width forms that some programs take for the same.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_ESCAPED = re.compile("'+[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def guard(text: str) -> str:
    """The text for a cell: an apostrophe before what a spreadsheet would run."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguard(text: str) -> str:
    """The text of a cell that ``guard`` wrote, or that a person wrote in the same way."""
    return text[1:] if _ESCAPED.match(text) else text
