"""Base64 as clients read it (RFC 4648 section 4), out of what providers write: in lines, with blanks, or for addresses.

Most is as it should be, which its first bytes say; that is passed on as it comes.
"""

from __future__ import annotations

import re
from typing import Final

LOOKED_AT_BYTES: Final = 256
_TO_PLAIN: Final = bytes.maketrans(b"-_", b"+/")
_BLANKS: Final = b" \t\r\n"
_QUANTUM_BYTES: Final = 4

_plain = re.compile(rb"[A-Za-z0-9+/=]*+")
_escape = re.compile(rb"\\(?:[nrtbf]|u00(2[bB]|2[fF]|3[dD]|2[dD]|5[fF]|[01][0-9A-Fa-f]|20)|(/))")
_begun_escape = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?\Z")


def is_plain(begin: bytes) -> bool:
    """Whether the first bytes of a string, as JSON has it, are base64 and nothing else."""
    match = _plain.match(begin, 0, LOOKED_AT_BYTES)
    return match is not None and match.end() == min(len(begin), LOOKED_AT_BYTES)


class Base64Text:
    """One string of base64, as JSON has it, in pieces of any size."""

    __slots__ = ("_held", "_is_padded", "_is_plain", "_length")

    def __init__(self) -> None:
        """Start before the first piece."""
        self._is_plain: bool | None = None
        self._held = b""
        self._length = 0
        self._is_padded = False

    def take(self, piece: bytes) -> bytes:
        """More of it; return what may be passed on."""
        if self._is_plain:
            return piece
        if self._is_plain is None:
            piece, self._held = self._held + piece, b""
            if len(piece) < LOOKED_AT_BYTES:
                self._held = piece
                return b""
            return self._begin(piece)
        return self._mend(piece)

    def end(self) -> bytes:
        """It is whole: what is left of it, and the padding that it lacks."""
        rest = b""
        if self._is_plain is None:
            held, self._held = self._held, b""
            rest = self._begin(held)
        missing = -self._length % _QUANTUM_BYTES
        return rest if self._is_padded or missing == _QUANTUM_BYTES - 1 else rest + b"=" * missing

    def _begin(self, begin: bytes) -> bytes:
        self._is_plain = is_plain(begin)
        return begin if self._is_plain else self._mend(begin)

    def _mend(self, piece: bytes) -> bytes:
        text = self._held + piece
        begun = _begun_escape.search(text, max(0, len(text) - len(b"\\u000")))
        self._held = b"" if begun is None else begun[0]
        text = _escape.sub(_unescape, text[: len(text) - len(self._held)]).translate(_TO_PLAIN, _BLANKS)
        self._length += len(text)
        self._is_padded = self._is_padded or text.endswith(b"=")
        return text


def _unescape(found: re.Match[bytes]) -> bytes:
    if found[2]:
        return found[2]
    return bytes([int(found[1], 16)]).translate(None, bytes(range(0x21))) if found[1] else b""
