"""What stands between the quotes of a JSON string, mended while it passes, so that every parser reads it (RFC 8259).

Providers send raw control characters, text that is not UTF-8 and escapes that do not exist. A client's parser refuses
the whole answer for one of them, and its images are lost. What is put in their place is never longer, so that an answer
still fits into the length of the provider's.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import repeat
from typing import Final

import orjson

_CONTROLS_TO_BLANKS: Final = bytes(max(byte, ord(" ")) for byte in range(256))
_UNREADABLE: Final = "\N{REPLACEMENT CHARACTER}"
_HALF: Final = "\\ufffd"
_HIGH = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_valid = re.compile(
    r'(?:[^\\]++|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|' + _HIGH + _LOW + r")*+",
)
_half_pair = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_begun_escape = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?|" + _HIGH + r"(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?")
# All up to the quote that ends a string, or up to a backslash that is the last byte.
_rest_of_string = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_BACKSLASH: Final = ord("\\")
_PART_BYTES: Final = 8_192
"""What is looked at is copied several times meanwhile."""

_CHECKED_BYTES: Final = 16_384
"""At once: orjson takes room for eight times as much."""

_CHECKED: Final = tuple(slice(at, at + _CHECKED_BYTES) for at in range(0, 64 * _CHECKED_BYTES, _CHECKED_BYTES))
_decoder = codecs.getincrementaldecoder("utf-8")


class StringEnds:
    """Where one string after the other ends, in pieces of any size."""

    __slots__ = ("_is_escaped",)

    def __init__(self) -> None:
        """Start before a string."""
        self._is_escaped = False

    def _find_string_end(self, data: bytes, at: int) -> int:
        """The index of the quote that ends the string; or -1, with a note whether the next byte is an escaped one."""
        quote = data.find(b'"', at)
        before = (quote if quote >= 0 else len(data)) - 1
        if data[before] != _BACKSLASH if before >= at else not self._is_escaped:
            # What most strings are: megabytes without an escape, which nothing finds the end of as fast.
            self._is_escaped = False
            return quote
        match = _rest_of_string.match(data, at + self._is_escaped)
        end = match.end() if match else at
        self._is_escaped = end < len(data) and data[end] == _BACKSLASH
        return end if end < len(data) and not self._is_escaped else -1


class StringMender:
    """One string after the other, in pieces of any size; what comes out does not depend on how they are cut.

    A control character becomes a blank, a byte that is not UTF-8 (and U+FFFD, which stands for one) a question mark,
    half of a surrogate pair U+FFFD; the backslash of an escape that does not exist is left out.
    """

    __slots__ = ("_decode", "_held", "_is_plain")

    def __init__(self) -> None:
        """Start before a string."""
        self._decode = _decoder("replace")
        self._held = ""
        # Whether nothing of what has come is still to be decided.
        self._is_plain = True

    def add(self, piece: bytes) -> bytes:
        """More of the string; return what may be passed on, which may be nothing."""
        if self.passes(piece):
            return piece
        return b"".join([self._mend(part, is_last=False) for part in _parts(piece)])

    def passes(self, piece: bytes) -> bool:
        """Whether ``add`` would return just ``piece``, of which it then needs to know nothing."""
        return self._is_plain and _is_plain(piece)

    def end(self) -> bytes:
        """The string is whole: return what was held of it. Another one may begin."""
        return b"" if self._is_plain else self._mend(b"", is_last=True)

    def _mend(self, piece: bytes, *, is_last: bool) -> bytes:
        decoded = self._decode.decode(piece.translate(_CONTROLS_TO_BLANKS), is_last)
        text, self._held = self._held + decoded.replace(_UNREADABLE, "?"), ""
        out: list[str] = []
        at = 0
        while True:
            match = _valid.match(text, at)
            end = match.end() if match else at
            out.append(text[at:end])
            if end == len(text):
                break
            if not is_last and _begun_escape.fullmatch(text, end):
                self._held = text[end:]
                break
            half = _half_pair.match(text, end)
            if half:
                out.append(_HALF)
            at = half.end() if half else end + 1
        self._is_plain = not self._held and not self._decode.getstate()[0]
        return "".join(out).encode()


def _is_plain(piece: bytes) -> bool:
    """Whether the piece is ASCII that needs no escape, as megabytes of base64 are.

    orjson finds what would have to be escaped fifty times as fast as a regular expression.
    """
    if len(piece) <= _CHECKED_BYTES:
        return piece.isascii() and len(orjson.dumps(piece.decode("ascii"))) == len(piece) + len(b'""')
    if len(piece) > _CHECKED_BYTES * len(_CHECKED):
        most = _CHECKED_BYTES * len(_CHECKED)
        return all(_is_plain(piece[at : at + most]) for at in range(0, len(piece), most))
    parts = _CHECKED[: -(-len(piece) // _CHECKED_BYTES)]
    views = map(memoryview(piece).__getitem__, parts)
    try:
        # One at a time, and none of it in Python.
        written_bytes = sum(map(len, map(orjson.dumps, map(str, views, repeat("ascii")))))
    except UnicodeDecodeError:
        return False
    return written_bytes == len(piece) + len(parts) * len(b'""')


def _parts(piece: bytes) -> Iterator[bytes]:
    for start in range(0, len(piece), _PART_BYTES):
        yield piece[start : start + _PART_BYTES]
