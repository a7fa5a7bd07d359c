"""Width and height of an image, out of the first bytes of it as base64 in JSON.

PNG (RFC 2083 section 4.1.1), JPEG (ITU T.81 section B.2.2) and WebP (RFC 9649). A JPEG has its size after its
metadata: where those are longer than what is looked at, the size is unknown.
"""

from __future__ import annotations

import binascii
import re

PREFIX_BYTES_LIMIT = 16_384
"""Of base64; a multiple of four."""

SIZES_LIMIT = 1_000
"""Of one answer; it is as many images as can be asked for. Those beyond count as unknown."""

Size = tuple[int, int]
"""Width and height in pixels."""

_escape = re.compile(rb"\\(?:u00([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_no_base64 = re.compile(rb"[^A-Za-z0-9+/]")
_PNG_BYTES, _WEBP_BYTES = 24, 30
"""From here on the size is known."""
_BEGIN_BYTES = 512
"""Of base64: more than any header but JPEG's takes, with each character as the longest escape."""
_MARKER, _LOSSLESS = 0xFF, 0x2F
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


class SizeProbe:
    """Gathers the beginning of one image's base64 after the other."""

    __slots__ = ("prefix",)

    def __init__(self) -> None:
        """Nothing yet."""
        self.prefix = b""

    def begin(self) -> None:
        """Another image begins."""
        self.prefix = b""

    def add(self, piece: bytes) -> None:
        """More of it; what is past the beginning is not kept."""
        room = PREFIX_BYTES_LIMIT - len(self.prefix)
        if room > 0:
            self.prefix += piece[:room]

    def size(self) -> Size | None:
        """What is known by now."""
        return read_size(self.prefix)


def read_size(base64_prefix: bytes) -> Size | None:
    """The size of the image that begins so; None where it is of no known kind, or has it later."""
    data = _decode(base64_prefix[:_BEGIN_BYTES])
    size = None
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= _PNG_BYTES:
        size = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    elif data.startswith(b"\xff\xd8\xff"):
        size = _jpeg(_decode(base64_prefix[:PREFIX_BYTES_LIMIT]))
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        size = _webp(data)
    return size if size and all(size) else None


def _decode(text: bytes) -> bytes:
    """As much as is base64."""
    if b"\\" in text:
        text = _escape.sub(_unescape, text)
    end = _no_base64.search(text)
    text = text[: end.start()] if end else text
    return binascii.a2b_base64(text[: len(text) // 4 * 4])


def _unescape(match: re.Match[bytes]) -> bytes:
    # Of what may be escaped, base64 holds only these; a line's end is none of it.
    return bytes([int(match[1], 16)]) if match[1] else match[2] if match[2] == b"/" else b""


def _jpeg(data: bytes) -> Size | None:
    at = 2
    while at + 9 <= len(data) and data[at] == _MARKER:
        marker = data[at + 1]
        if marker == _MARKER:
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif marker in _START_OF_FRAME:
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= _WEBP_BYTES:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and len(data) >= _WEBP_BYTES and data[20] == _LOSSLESS:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(data) >= _WEBP_BYTES and data[23:26] == b"\x9d\x01\x2a":
        return (
            int.from_bytes(data[26:28], "little") & 0x3FFF,
            int.from_bytes(data[28:30], "little") & 0x3FFF,
        )
    return None


def keep_size(sizes: list[Size | None], size: Size | None) -> None:
    """Add the size of one more image, up to the limit."""
    if len(sizes) < SIZES_LIMIT:
        sizes.append(size)


def write_size(size: Size | None) -> str | None:
    """As the ledger has it."""
    return None if size is None else f"{size[0]}x{size[1]}"
