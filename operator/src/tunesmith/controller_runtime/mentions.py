"""Which objects hold which digests and URIs: found without reading any of them."""

import re
from array import array
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

import orjson

from tunesmith.manifests.objects import Body

#: What one object says of another beside names: digests and URIs, also within JSON within JSON.
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
_URI = re.compile(rb'[a-z0-9]+://[^"\\\s]+')

Holder = TypeVar("Holder", bound=Hashable)


def mentioned_in(body: Body) -> frozenset[int]:
    """Hashes of the digests and URIs in an object."""
    text = orjson.dumps(body)
    return frozenset(hash(found) for pattern in (_DIGEST, _URI) for found in pattern.findall(text))


def hashes_of(texts: Iterable[str]) -> frozenset[int]:
    """Hashes of digests and URIs as ``mentioned_in`` gives them."""
    return frozenset(hash(text.encode()) for text in texts)


class Mentions(Generic[Holder]):
    """Holders by what they mention.

    A holder may be found that no longer mentions a text, or, since hashes are kept, never did; none is missed.
    """

    def __init__(self) -> None:
        self._holders: dict[int, dict[Holder, None]] = {}
        self._hashes: dict[Holder, array[int]] = {}

    def add(self, holder: Holder, hashes: Iterable[int]) -> None:
        """The holder mentions these texts as well."""
        new = [each for each in hashes if holder not in self._holders.get(each, ())]
        for each in new:
            self._holders.setdefault(each, {})[holder] = None
        self._hashes.setdefault(holder, array("q")).extend(new)

    def drop(self, holder: Holder) -> None:
        """Forget the holder."""
        for each in self._hashes.pop(holder, ()):
            holders = self._holders[each]
            del holders[holder]
            if not holders:
                del self._holders[each]

    def find(self, hashes: Iterable[int]) -> Iterator[Holder]:
        """Those that mention one of these texts, each once; those of one text in the order in which they came."""
        found: set[Holder] = set()
        for each in hashes:
            for holder in tuple(self._holders.get(each, ())):
                if holder not in found:
                    found.add(holder)
                    yield holder

    def of(self, holder: Holder) -> frozenset[int]:
        """Hashes of what the holder mentions."""
        return frozenset(self._hashes.get(holder, ()))
