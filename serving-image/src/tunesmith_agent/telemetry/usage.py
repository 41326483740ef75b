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
_OVERLAP = len(_ERROR) - 1
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

_EVENT_END = b"\n\n"
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
        "_awaits_code", "_held", "_hides_usage", "_reads_reasons", "_reasons", "_text", "_unread", "failed",
        "is_stream",
    )  # fmt: skip

    def __init__(self, hides_usage: bool, reads_reasons: bool) -> None:
        self.is_stream = self.failed = self._awaits_code = False
        self._hides_usage = hides_usage
        self._reads_reasons = reads_reasons
        self._held = self._unread = self._text = b""
        self._reasons: list[str] = []

    def read(self, data: bytes) -> bytes:
        """Take a piece of the answer; returns what is passed on now."""
        if self.is_stream and self._hides_usage:
            if self._held:
                data, self._held = self._held + data, b""
            if not data.endswith(_EVENT_END):
                data = self._hold_back(data)
            if _KEY in data:
                self._search(data)
                return _without_usage(data)
            # Most pieces are tokens, in which there is nothing to be found.
            if self._text or self._awaits_code or self._reads_reasons or _ERROR in data:
                self._search(data)
            return data
        # Most answers come in one piece, which is searched once, at the end.
        self._unread += data
        if len(self._unread) > _MAX_UNREAD:
            self._search(self._unread)
            self._unread = self._unread[-_OVERLAP:]
        return data

    def end(self) -> bytes:
        """Note the end of the answer; returns what was kept back of it."""
        rest, self._held = self._held, b""
        return rest

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
        """Keep an incomplete event that may have the counts; returns the rest."""
        cut = data.rfind(_EVENT_END) + len(_EVENT_END) if _EVENT_END in data else 0
        begin = data[cut:]
        is_event = begin.startswith(_EVENT_BEGIN) or _EVENT_BEGIN.startswith(begin)
        if is_event and b'"choices":[{' not in begin and len(begin) <= _MAX_HELD:
            self._held = begin
            return data[:cut]
        if data.endswith(b"\n"):
            # Perhaps half of the end of this event: it must not be left out with the event behind it.
            self._held = b"\n"
            return data[:-1]
        return data

    def _search(self, data: bytes) -> None:
        at = data.rfind(_KEY)
        if at >= 0:
            self._text = data[at : at + _MAX_TEXT]
        elif self._text and len(self._text) < _MAX_TEXT:
            self._text += data[_OVERLAP : _OVERLAP + _MAX_TEXT - len(self._text)]
        begin = data.find(_ERROR) if self.is_stream else -1
        if begin >= 0 or self._awaits_code:
            code = _CODE.search(data, max(begin, 0))
            self._awaits_code = code is None
            self.failed = code is None or code[1] >= b"500"
        if self._reads_reasons and len(self._reasons) < _MAX_REASONS:
            for reason in _REASON.findall(data):
                word = reason.decode()
                self._reasons.append(word if word in _REASONS else "other")


def _without_usage(events: bytes) -> bytes:
    kept = [
        event
        for event in events.split(_EVENT_END)
        if not (_KEY in event and _NO_CHOICES.search(event) is not None)
    ]
    return _EVENT_END.join(kept)
