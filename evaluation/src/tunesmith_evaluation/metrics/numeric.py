"""Scorer of numbers in answers."""

import re
import unicodedata
from collections import deque
from decimal import Decimal

from tunesmith_evaluation.statistics.kinds import ScoreKind

from .answers import Expected
from .scorer import Score, TextScorer, binary

#: Marks between groups of three digits beside comma and point: no-break, narrow and thin blanks, apostrophes.
_GROUP_MARKS = "\u00a0\u202f\u2009'\u2019"
# A sign belongs to the number unless it stands between two things, as in 5-3; what is part of a word (H2O) is none.
_NUMBER = re.compile(
    rf"""(?<![^\W_])(?<!\d[.,])
        (?P<sign>(?<![\d)\]])[-+])?
        (?P<digits>\d++(?:[.,{_GROUP_MARKS}]\d++)*+|[.,]\d++)
        (?P<exponent>[eE][-+]?\d++)?
        (?P<percent>\s?%)?""",
    re.VERBOSE | re.ASCII,
)
_GROUPED = re.compile(rf"\d{{1,3}}(?:([.,{_GROUP_MARKS}])\d{{3}})(?:\1\d{{3}})*")
_HUNDREDTH = Decimal("0.01")
_MINUS_SIGNS = {
    ord("\u2212"): "-",
    ord("\uff0d"): "-",
    ord("\u066b"): ".",
    ord("\u066c"): ",",
    ord("\u066a"): "%",
}


class Numeric(TextScorer):
    """1 if the last number of the answer equals the last number expected, within a tolerance.

    Args:
        absolute: largest difference.
        relative: largest difference as a share of the expected number; the larger of both counts.
    """

    name = "Numeric"
    kind = ScoreKind.BINARY

    def __init__(self, absolute: float = 0.0, relative: float = 0.0) -> None:
        self._absolute = Decimal(repr(absolute))
        self._relative = Decimal(repr(relative))

    def _check(self, expected: Expected) -> str | None:
        if expected.text.strip() and last_number(expected.text) is None:
            return f"{expected.subject} has no number, which Numeric compares with: write one"
        return None

    def score_text(self, expected: Expected, text: str) -> Score:
        """1 for a number within the tolerance."""
        found, wanted = last_number(text), last_number(expected.text)
        if found is None or wanted is None:
            return binary(False, number=None)
        try:
            tolerance = max(self._absolute, self._relative * abs(wanted))
            close = found == wanted or abs(found - wanted) <= tolerance
        except ArithmeticError:
            close = False
        return binary(close, number=str(found)[:40])


def last_number(text: str) -> Decimal | None:
    """The last number in a text; None if there is none.

    - The mark that stands last of comma and point is the decimal mark if both stand there. One that repeats, or a comma
      before exactly three digits, groups thousands (1,234); any other is the decimal mark (1,5 and 1.234).
    - Per cent are hundredths. Digits of all scripts count.
    """
    found = deque(_NUMBER.finditer(_ascii_digits(text)), maxlen=1)
    if not found:
        return None
    (last,) = found
    digits = _plain_digits(last["digits"])
    if digits is None:
        return None
    try:
        number = Decimal((last["sign"] or "") + digits + (last["exponent"] or ""))
        return number * _HUNDREDTH if last["percent"] else number
    except ArithmeticError:
        return None


def _plain_digits(written: str) -> str | None:
    """Digits with a decimal point alone; None for a chain such as 1.2.3 or a date."""
    marks = [character for character in written if not character.isdigit()]
    if not marks:
        return written
    decimal = marks[-1]
    whole, _, fraction = written.rpartition(decimal)
    is_decimal = decimal in ".," and marks.count(decimal) == 1
    if (
        is_decimal
        and len(marks) == 1
        and decimal == ","
        and len(fraction) == 3
        and _GROUPED.fullmatch(written)
    ):
        is_decimal = whole in ("0", "")
    if not is_decimal:
        whole, fraction = written, ""
    if not whole.isdigit() and whole and not _GROUPED.fullmatch(whole):
        return None
    plain = "".join(character for character in whole if character.isdigit())
    return f"{plain or '0'}.{fraction}" if fraction else plain


def _ascii_digits(text: str) -> str:
    """The text with digits of all scripts, minus signs and Arabic marks in ASCII."""
    if text.isascii():
        return text
    translated = text.translate(_MINUS_SIGNS)
    return "".join(
        str(unicodedata.decimal(character))
        if not character.isascii() and character.isdecimal()
        else character
        for character in translated
    )
