"""Token counts of an answer, read from its bytes as they pass."""

import re
from typing import NamedTuple

#: The engine writes its counts at the end of an answer, behind all text.
_TAIL_BYTES = 4096
#: Longest event of a stream that is held back until it is whole.
_MAX_EVENT_BYTES = 1024 * 1024

_USAGE = b'"usage":'
# Inside of JSON strings quotes are escaped, so text of an answer never matches.
_COUNT = re.compile(rb'"(prompt|input|completion|output|total)_tokens":\s*(\d+)')
_NO_CHOICES = re.compile(rb'"choices":\s*\[\]')


class Tokens(NamedTuple):
    """Tokens of a prompt and of its answers."""

    prompt: int
    answer: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.answer


class AnswerTokens:
    """Reader of one answer.

    Args:
        hides_usage: leave out of a stream the last event, which the agent asked for and the client did not.

    Attributes:
        events: events of a stream that have passed.
    """

    __slots__ = ("_hides_usage", "_pending", "_tail", "events")

    def __init__(self, hides_usage: bool) -> None:
        self._hides_usage = hides_usage
        self._tail = self._pending = b""
        self.events = 0

    def pass_on(self, data: bytes) -> bytes:
        """Read a piece of the answer; returns what the client gets of it."""
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        self.events += data.count(b"data: ")
        if not self._hides_usage:
            return data
        if not self._pending and data.endswith(b"\n\n") and _USAGE not in data:
            return data
        return self._without_usage(data)

    def rest(self) -> bytes:
        """What was held back of a stream that has ended."""
        rest, self._pending = self._pending, b""
        return rest

    def counted(self) -> Tokens | None:
        """Tokens by the engine's count; None if it has not come."""
        at = self._tail.rfind(_USAGE)
        counts = {name: int(count) for name, count in _COUNT.findall(self._tail[at:])} if at >= 0 else {}
        if not counts:
            return None
        prompt = counts.get(b"prompt", counts.get(b"input", 0))
        answer = counts.get(b"completion", counts.get(b"output", 0))
        return Tokens(prompt, max(answer, counts.get(b"total", 0) - prompt))

    def _without_usage(self, data: bytes) -> bytes:
        data = self._pending + data
        end = data.rfind(b"\n\n") + 2
        if end == 1:
            end = len(data) if len(data) > _MAX_EVENT_BYTES else 0
        self._pending = data[end:]
        events = data[:end].split(b"\n\n")
        return b"\n\n".join(event for event in events if not (_USAGE in event and _NO_CHOICES.search(event)))
