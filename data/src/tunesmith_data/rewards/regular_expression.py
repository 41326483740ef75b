"""Regular expressions whose time grows with the text alone, whatever a pattern or a model comes up with."""

from collections.abc import Callable

import re2

from tunesmith_contract.methods import RegexReward
from tunesmith_data.failures import UserError

from .reward_function import Scorer, each


def build_regex(name: str, spec: RegexReward) -> Scorer:
    """1 where the pattern is found in the answer, else 0.

    Raises:
        UserError: RE2 can't take the pattern.
    """
    found = compile_pattern(spec.pattern, f"reward {name}")
    return each(lambda text: float(found(text)))


def compile_pattern(pattern: str, where: str) -> Callable[[str], bool]:
    """Whether a text holds the pattern, by RE2.

    Raises:
        UserError: RE2 can't take the pattern.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        message = (
            f"{where}: the pattern {pattern!r} can't be used ({reason}): write it in RE2's syntax, "
            "without look-around and back-references"
        )
        raise UserError("RewardPattern", message) from error
    return lambda text: compiled.search(text) is not None
