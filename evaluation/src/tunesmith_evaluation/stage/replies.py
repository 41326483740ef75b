"""Replies of a run by their place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith_evaluation.items.requests import Reply, Request


@dataclass(frozen=True, slots=True)
class ReplyKey:
    """Place of a reply: side, suite and item."""

    side: str
    suite: str
    item: str


#: Place of a reply, and the number of its repeat.
Place = tuple[ReplyKey, int]

#: Replies to the repeats of each item, in their order.
Replies = Mapping[ReplyKey, Sequence[Reply]]


def request_place(request: Request) -> Place:
    """Place of the reply to a request, and its repeat."""
    return ReplyKey(request.side, request.suite, request.item), request.repeat
