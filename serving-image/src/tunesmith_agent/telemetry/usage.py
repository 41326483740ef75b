"""Tokens of an answer, read from the engine's own count while the answer passes.

The engine counts a stream's tokens only if it is asked to, in an event of its own at the end. It is always asked; a
client that did not ask does not see the event.
"""

import re
from typing import Any

from tunesmith_agent.metrics import Usage

#: Paths whose streams have ``stream_options``.
_PATHS_WITH_OPTIONS = frozenset((b"/v1/chat/completions", b"/v1/completions"))

_KEY = b'"usage":'
#: Begin of an event with an error: the engine has sent 200 by then.
_ERROR = b'data: {"error":'
_CODE = re.compile(rb'"code":\s*(\d{3})[,}\s]')
#: Bytes of a piece that are searched again with the next one: more than anything that is looked for but the counts.
_OVERLAP = 64
#: An object, mostly with the prompt's count first; before the end there may be null.
_COUNTS = re.compile(rb'"usage":\s*\{(?:\s*"(?:prompt|input)_tokens":\s*(\d{1,9})[,}\s])?')
#: Counts of OpenAI's chat and text completions, or of its responses.
_PROMPT = re.compile(rb'"(?:prompt|input)_tokens":\s*(\d{1,9})[,}\s]')
_GENERATED = re.compile(rb'"(?:completion|output)_tokens":\s*(\d{1,9})[,}\s]')
_CACHED = re.compile(rb'"cached_tokens":\s*(\d{1,9})[,}\s]')
_NO_CHOICES = re.compile(rb'"choices":\s*\[\]')
_REASON = re.compile(rb'"finish_reason":\s*"(\w+)"')
#: Reasons of vLLM; any other one is not repeated.
_REASONS = frozenset(("stop", "length", "tool_calls", "function_call", "content_filter", "abort", "error"))
_MAX_REASONS = 16

#: End of an event as vLLM writes it.
_PLAIN_END = b"\n\n"
#: End of an event: an empty line, or several. A line may also end with a carriage return, alone or before a line feed.
_EVENT_END = re.compile(rb"(?:\r\n|\r(?!\n)|\n){2,}")
_LINE_ENDS = b"\r\n"
_EVENT_BEGIN = b"data:"
#: Longest part of an event that is kept back until its rest has come.
_MAX_HELD = 4096
#: Most bytes of an answer that are kept until they are searched.
_MAX_UNREAD = 16 * 1024
#: Longest text of the counts.
_MAX_TEXT = 512


def ask_for_usage(path: bytes, body: dict[str, Any]) -> bool:
    """Make the engine count the tokens of a stream; True if its client did not ask for it.

    Args:
        body: the request, which is changed.
    """
    if body.get("stream") is not True or path not in _PATHS_WITH_OPTIONS:
        return False
    options = body.get("stream_options")
    if options is None:
        body["stream_options"] = {"include_usage": True}
        return True
    if not isinstance(options, dict) or options.get("include_usage"):
        return False
    # Alone the second option has no effect; together they would add counts to each event.
    body["stream_options"] = {**options, "include_usage": True, "continuous_usage_stats": False}
    return True


class AnswerReader:
    """Reader of one answer, piece by piece.

    A quote inside a JSON string is escaped, so what models write is never taken for a key. What clients write may be: a
    response repeats the schemas of its tools. Its own key comes behind them, so the last one counts.

    Args:
        hides_usage: the event with the counts is not passed on.
        reads_reasons: collect the finish reasons, too.

    Attributes:
        is_stream: the answer is a stream of events.
        failed: a stream told of an error of the engine, rather than of the request; known after ``usage``.
    """

    __slots__ = (
        "_awaits_code", "_held", "_hides_usage", "_reads_reasons", "_reasons", "_tail", "_text", "_unread",
        "failed", "is_stream",
    )  # fmt: skip

    def __init__(self, hides_usage: bool, reads_reasons: bool) -> None:
        self.is_stream = self.failed = self._awaits_code = False
        self._hides_usage = hides_usage
        self._reads_reasons = reads_reasons
        self._held = self._unread = self._tail = self._text = b""
        self._reasons: list[str] = []

    def read(self, data: bytes) -> bytes:
        """Take a piece of the answer; returns what is passed on now."""
        if self.is_stream and self._hides_usage:
            if self._held:
                data, self._held = self._held + data, b""
            if not data.endswith(_PLAIN_END):
                data = self._hold_back(data)
            if _KEY in data:
                self._search(data)
                return _without_usage(data)
            # Most pieces are tokens, in which there is nothing to be found.
            if self._text or self._awaits_code or self._reads_reasons or _ERROR in data:
                self._search(data)
            else:
                self._tail = b""
            return data
        # Most answers come in one piece, which is searched once, at the end.
        self._unread += data
        if len(self._unread) > _MAX_UNREAD:
            self._search(self._unread)
            self._unread = b""
        return data

    def end(self) -> bytes:
        """Note the end of the answer; returns what was kept back of it."""
        rest, self._held = self._held, b""
        if _KEY not in rest:
            return rest
        self._search(rest)
        return _without_usage(rest)

    def usage(self) -> Usage | None:
        """Tokens of the answer as far as it was read; None if it did not say."""
        if self._unread:
            self._search(self._unread)
            self._unread = b""
        text = self._text
        counts = _COUNTS.match(text)
        if counts is None:
            return None
        prompt = counts if counts[1] else _PROMPT.search(text)
        if prompt is None:
            return None
        generated = _GENERATED.search(text)
        cached = _CACHED.search(text) if b'"cached_tokens"' in text else None
        return Usage(int(prompt[1]), int(generated[1]) if generated else 0, int(cached[1]) if cached else 0)

    def finish_reasons(self) -> tuple[str, ...]:
        """Reasons why the engine stopped, one for each choice; known after ``usage``."""
        return tuple(self._reasons)

    def _hold_back(self, data: bytes) -> bytes:
        """Keep an incomplete event that may have the counts; returns the rest.

        After a carriage return the second half of a line end may come. So an event that ends with one may be
        incomplete.
        """
        cut = _end_of_events(data)
        begin = data[cut:].lstrip(_LINE_ENDS)
        is_event = begin.startswith(_EVENT_BEGIN) or _EVENT_BEGIN.startswith(begin)
        if is_event and b'"choices":[{' not in begin and len(begin) <= _MAX_HELD:
            self._held = data[cut:]
            return data[:cut]
        text = data.rstrip(_LINE_ENDS)
        if len(text) < len(data) and not _EVENT_END.match(data, len(text)):
            # Perhaps half of the end of this event: it must not be left out with the event behind it.
            self._held = data[len(text) :]
            return text
        return data

    def _search(self, piece: bytes) -> None:
        seen = len(self._tail)
        data = self._tail + piece
        self._tail = data[-_OVERLAP:]
        at = data.rfind(_KEY)
        if at >= 0:
            self._text = data[at : at + _MAX_TEXT]
        elif self._text and len(self._text) < _MAX_TEXT:
            self._text += piece[: _MAX_TEXT - len(self._text)]
        begin = data.find(_ERROR) if self.is_stream else -1
        if begin >= 0 or self._awaits_code:
            code = _CODE.search(data, max(begin, 0))
            self._awaits_code = code is None
            self.failed = code is None or code[1] >= b"500"
        if self._reads_reasons:
            self._collect_reasons(data, seen)

    def _collect_reasons(self, data: bytes, seen: int) -> None:
        """Collect the finish reasons; what ends in the first ``seen`` bytes was collected before."""
        for match in _REASON.finditer(data):
            if match.end() > seen and len(self._reasons) < _MAX_REASONS:
                word = match[1].decode()
                self._reasons.append(word if word in _REASONS else "other")


def _end_of_events(data: bytes) -> int:
    """Position behind the last event that is complete, whatever comes."""
    if b"\r" not in data:
        last = data.rfind(_PLAIN_END)
        return last + len(_PLAIN_END) if last >= 0 else 0
    ends = (match.end() for match in _EVENT_END.finditer(data))
    return max((end for end in ends if end < len(data) or not data.endswith(b"\r")), default=0)


def _without_usage(events: bytes) -> bytes:
    """Leave out the event with the counts, and its end; line ends before it belong to the event before."""
    kept, position = b"", 0
    for end in _EVENT_END.finditer(events):
        event = events[position : end.end()]
        if _KEY in event and _NO_CHOICES.search(event) is not None:
            event = event[: len(event) - len(event.lstrip(_LINE_ENDS))]
        kept += event
        position = end.end()
    return kept + events[position:]
