"""Takes personal data out of what reports quote: they are passed around."""

from typing import Any

from .personal_data import PersonalDataFinder

#: Members of reports that quote rows, or what people say of them.
_QUOTING = frozenset({"excerpt", "otherExcerpt", "detail", "reasons", "comments"})


def mask_quotations(value: Any, finder: PersonalDataFinder) -> Any:
    """A document, as plain JSON types, whose quotations hold no personal data."""
    if isinstance(value, list):
        return [mask_quotations(each, finder) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: finder.mask_row({"text": each})[0]["text"]
        if name in _QUOTING
        else mask_quotations(each, finder)
        for name, each in value.items()
    }
