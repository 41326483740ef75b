"""UTF-8 checks, and detection of other encodings for the message."""

import codecs

from tunesmith_data.rows.findings import Finding

#: The mark that some editors write before UTF-8.
BYTE_ORDER_MARK = codecs.BOM_UTF8

_ADVICE = "save it as UTF-8"
#: UTF-32's mark of little-endian order begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_GUESSED_BYTES = 16 * 1024


class EncodingGuess:
    """Guess of a file's encoding, made once for all its lines."""

    def __init__(self) -> None:
        self._name: str | None = None

    def __call__(self, data: bytes) -> str:
        """The encoding's name; empty if nothing fits."""
        if self._name is None:
            # Takes long to import, and is needed for bad files only.
            from charset_normalizer import from_bytes

            best = from_bytes(data[:_GUESSED_BYTES]).best()
            self._name = best.encoding if best and best.encoding not in ("utf_8", "ascii") else ""
        return self._name


def wide_encoding(head: bytes) -> str | None:
    """``UTF-16`` or ``UTF-32``, by its byte order mark or the positions of zero bytes; None for other encodings."""
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if marked or len(head) < 4:
        return marked
    share = sorted(head[place::4].count(0) / len(head[place::4]) for place in range(4))
    # Of four bytes UTF-32 has zeros in three, or two; UTF-16 of mostly ASCII letters in two.
    if share[0] > 0.05 or share[2] < 0.4:
        return None
    return "UTF-32" if share[1] > 0.4 else "UTF-16"


def wide_encoding_finding(encoding: str) -> Finding:
    """Finding for a file in UTF-16 or UTF-32."""
    return Finding("invalid_encoding", f"text in {encoding}", _ADVICE)


def check_utf8(data: bytes, guess: EncodingGuess | None = None) -> Finding | None:
    """Finding for the first byte that is not UTF-8, or a NUL byte; None if there is none."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        column = len(data[: error.start].decode()) + 1
        name = guess(data) if guess else ""
        looks = f", as in {name}" if name else ", which is not UTF-8"
        return Finding("invalid_encoding", f"byte 0x{data[error.start]:02X}{looks}", _ADVICE, column=column)
    position = text.find("\0")
    if position < 0:
        return None
    return Finding(
        "invalid_encoding", "a NUL byte, which is not allowed in text", _ADVICE, column=position + 1
    )
