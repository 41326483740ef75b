"""An answer whose last number is the right one."""

import re
from collections import deque
from decimal import Decimal

from tunesmith_contract.methods import NumericReward

from .reward_function import Batch, Scorer

# A comma groups thousands and a point is the decimal mark. A sign belongs to the number unless it stands between two
# things, as in 5-3; what is part of a word (H2O) or of a longer chain (1.2.3) is no number of its own.
_NUMBER = re.compile(
    r"""(?<!\w)(?<!\d\.)
        (?P<sign>(?<![\d)])[-+\u2212])?
        (?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)
        (?P<exponent>[eE][-+\u2212]?\d+)?
        (?P<percent>\s?%)?""",
    re.VERBOSE | re.ASCII,
)
_HUNDREDTH = Decimal("0.01")


def build_numeric(spec: NumericReward) -> Scorer:
    """1 where the last numbers of answer and row differ by no more than the tolerance, else 0."""
    tolerance = Decimal(repr(spec.tolerance))

    def score(batch: Batch) -> list[float]:
        pairs = zip(batch.texts, batch.answers, strict=True)
        return [
            float(_close(last_number(text), last_number(answer or ""), tolerance)) for text, answer in pairs
        ]

    return score


def last_number(text: str) -> Decimal | None:
    """The last number in a text; per cent are hundredths."""
    last = deque(_NUMBER.finditer(text), maxlen=1)
    if not last:
        return None
    (match,) = last
    written = (match["sign"] or "") + match["digits"].replace(",", "") + (match["exponent"] or "")
    try:
        number = Decimal(written.replace("\u2212", "-"))
        return number * _HUNDREDTH if match["percent"] else number
    except ArithmeticError:
        return None


def _close(left: Decimal | None, right: Decimal | None, tolerance: Decimal) -> bool:
    if left is None or right is None:
        return False
    try:
        return left == right or abs(left - right) <= tolerance
    except ArithmeticError:
        return False
