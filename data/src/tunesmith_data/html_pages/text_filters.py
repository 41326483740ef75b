"""Template filters that format numbers and texts."""

import re
from collections.abc import Callable

MINUTE, HOUR, DAY = 60, 3600, 86400

#: First and last of: controls but line feed and tab; the soft hyphen; marks of direction; characters without a width;
#: lone surrogates; marks of byte order; characters of no text; tags. The joiners U+200C and U+200D stay: emoji and
#: several scripts are written with them.
_HIDDEN = (
    (0x00, 0x08),
    (0x0B, 0x1F),
    (0x7F, 0x9F),
    (0xAD, 0xAD),
    (0x61C, 0x61C),
    (0x180E, 0x180E),
    (0x200B, 0x200B),
    (0x200E, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0xD800, 0xDFFF),
    (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB),
    (0xFFFE, 0xFFFF),
    (0xE0000, 0xE007F),
)
_CONTROLS = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _HIDDEN) + "]")
_NAMES = {code: f"⟨U+{code:04X}⟩" for first, last in _HIDDEN for code in range(first, last + 1)}


def number(value: float) -> str:
    """``12,480``; three significant digits if the number is not whole."""
    if 0 < value < 0.001:
        return "less than 0.001"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"


def compact(value: float) -> str:
    """``3.57 M``, ``50.2 B``: a large number where there is little room; else as ``number``."""
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return number(value)


def percent(share: float) -> str:
    """``92 %``; ``<1 %`` and ``>99 %`` near the ends."""
    if 0 < share < 0.01:
        return "<1 %"
    if 0.99 < share < 1:
        return ">99 %"
    return f"{share:.0%}".replace("%", " %")


def share(value: float | None) -> str:
    """A percentage, or a dash for None."""
    return "–" if value is None else percent(value)  # noqa: RUF001


def coefficient(value: float) -> str:
    """Coefficient with two decimals: ``0.43``."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")  # noqa: RUF001


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.4 h``, ``2.1 days``."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 100 * MINUTE:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.3g} h" if seconds < 2 * DAY else f"{seconds / DAY:.3g} days"


def amount(value: float, currency: str) -> str:
    """Amount of money with its currency: ``12.40 EUR``."""
    if 0 < value < 0.01:
        return f"less than 0.01 {currency}"
    return f"{value:,.2f} {currency}"


def heading(check: str) -> str:
    """``contradicting_answers`` as ``Contradicting answers``."""
    words = check.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def shorten(text: str, characters: int) -> str:
    """The beginning of a text, with an ellipsis where that is not all."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def reveal_controls(text: str) -> str:
    """The text with characters that can't be seen, or that reorder others, written out: ``⟨U+202E⟩``."""
    return text.translate(_NAMES) if _CONTROLS.search(text) else text


FILTERS: dict[str, Callable[..., str]] = {
    "amount": amount,
    "coefficient": coefficient,
    "share": share,
    "compact": compact,
    "number": number,
    "percent": percent,
    "duration": duration,
    "heading": heading,
    "short": shorten,
    "visible": reveal_controls,
}
