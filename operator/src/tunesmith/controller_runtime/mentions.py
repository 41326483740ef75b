"""Which objects hold which digests and URIs: found without reading any of them."""

import re
from array import array
from collections.abc import Collection, Hashable, Iterable, Iterator
from itertools import chain
from typing import Generic, TypeVar

import orjson

from tunesmith.manifests.objects import Body

#: What one object says of another beside names: digests and URIs, also within JSON within JSON.
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
#: A URI after its scheme: a search for fixed characters is several times as fast as one for schemes.
_AFTER_SCHEME = re.compile(rb'://[^"\\\s]+')
_OF_SCHEMES = b"abcdefghijklmnopqrstuvwxyz0123456789"
_LONGEST_SCHEME = 16

Holder = TypeVar("Holder", bound=Hashable)


def mentioned_in(body: Body) -> frozenset[int]:
    """Hashes of the digests and URIs in an object."""
    text = orjson.dumps(body)
    return frozenset(map(hash, chain(_DIGEST.findall(text), _uris(text))))


def hashes_of(texts: Iterable[str]) -> frozenset[int]:
    """Hashes of digests and URIs as ``mentioned_in`` gives them."""
    return frozenset(hash(text.encode()) for text in texts)


def _uris(text: bytes) -> Iterator[bytes]:
    for found in _AFTER_SCHEME.finditer(text):
        before = text[max(0, found.start() - _LONGEST_SCHEME) : found.start()]
        yield before[len(before.rstrip(_OF_SCHEMES)) :] + found.group()


class Mentions(Generic[Holder]):
    """Holders by what they mention.

    A holder may be found that no longer mentions a text, or, since hashes are kept, never did; none is missed.
    """

    def __init__(self) -> None:
        # Most texts have one holder: a dict for each would take more than all the rest.
        self._holders: dict[int, Holder | dict[Holder, None]] = {}
        self._hashes: dict[Holder, array[int]] = {}

    def add(self, holder: Holder, hashes: Iterable[int]) -> None:
        """The holder mentions these texts as well."""
        new = [each for each in hashes if holder not in self._of(each)]
        for each in new:
            before = self._holders.get(each)
            if isinstance(before, dict):
                before[holder] = None
            else:
                self._holders[each] = holder if before is None else {before: None, holder: None}
        self._hashes.setdefault(holder, array("q")).extend(new)

    def drop(self, holder: Holder) -> None:
        """Forget the holder."""
        for each in self._hashes.pop(holder, ()):
            holders = self._holders[each]
            if isinstance(holders, dict):
                del holders[holder]
            if not isinstance(holders, dict) or not holders:
                del self._holders[each]

    def find(self, hashes: Iterable[int]) -> Iterator[Holder]:
        """Those that mention one of these texts, each once; those of one text in the order in which they came."""
        found: set[Holder] = set()
        for each in hashes:
            for holder in tuple(self._of(each)):
                if holder not in found:
                    found.add(holder)
                    yield holder

    def of(self, holder: Holder) -> frozenset[int]:
        """Hashes of what the holder mentions."""
        return frozenset(self._hashes.get(holder, ()))

    def _of(self, text_hash: int) -> Collection[Holder]:
        """The holders of one text."""
        holders = self._holders.get(text_hash)
        if holders is None:
            return ()
        return holders if isinstance(holders, dict) else (holders,)
