"""Rewards by simple rules: exact answer, length, last number, regular expression."""

import re
from collections import deque
from collections.abc import Callable, Collection
from decimal import Decimal

import re2

from tunesmith_contract.methods import ExactReward, LengthReward, NumericReward, RegexReward
from tunesmith_data.failures import UserError

from .reward_function import Batch, Scorer, score_each_text


def build_exact(spec: ExactReward) -> Scorer:
    """Scorer: 1 if the answer equals the row's answer, else 0."""

    def normal(text: str | None) -> str | None:
        stripped = text.strip() if text is not None else None
        return stripped.casefold() if stripped is not None and spec.ignore_case else stripped

    def score(batch: Batch) -> list[float]:
        pairs = zip(batch.texts, batch.answers, strict=True)
        return [float(normal(text) == normal(answer)) for text, answer in pairs]

    return score


def build_length(spec: LengthReward, special_ids: Collection[int]) -> Scorer:
    """Scorer: 1 between the limits, falling linearly to 0 at no tokens and at twice the upper limit.

    Args:
        spec: the limits, in tokens.
        special_ids: tokens that are no part of an answer, such as the one that ends it.
    """
    special = frozenset(special_ids)

    def score(batch: Batch) -> list[float]:
        lengths = [sum(token not in special for token in ids) for ids in batch.token_ids]
        return [length_score(length, spec) for length in lengths]

    return score


def length_score(length: int, spec: LengthReward) -> float:
    """Score of an answer by its number of tokens."""
    if length < spec.min_tokens:
        return length / spec.min_tokens
    return min(1.0, max(0.0, 2 - length / spec.max_tokens))


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
    """Scorer: 1 if the last numbers of answer and row differ by at most the tolerance, else 0."""
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


def build_regex(name: str, spec: RegexReward) -> Scorer:
    """Scorer: 1 if the answer matches the pattern, else 0.

    Raises:
        UserError: RE2 can't take the pattern.
    """
    matches = compile_pattern(spec.pattern, f"reward {name}")
    return score_each_text(lambda text: float(matches(text)))


def compile_pattern(pattern: str, where: str, reason: str = "RewardPattern") -> Callable[[str], bool]:
    """RE2 matcher for a pattern.

    Args:
        pattern: the pattern.
        where: what has the pattern, for messages.
        reason: reason of the error.

    Raises:
        UserError: RE2 can't take the pattern.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        problem = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        message = (
            f"{where}: the pattern {pattern!r} can't be used ({problem}): write it in RE2's syntax, "
            "without look-around and back-references"
        )
        raise UserError(reason, message) from error
    return lambda text: compiled.search(text) is not None
