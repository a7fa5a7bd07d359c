"""Bodies that a provider compresses although it was asked not to, decompressed in steps of bounded size.

gzip (RFC 1952) of any number of members, also where no header tells of it, and deflate (RFC 9110 section 8.4.1.2) with
the header of zlib or without. What is labelled as compressed and is none is left as it is.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Awaitable, Callable

from proxy.domain.errors import UpstreamUncertain

STEP_BYTES = 65_536
GZIP_MAGIC = b"\x1f\x8b"
_KNOWN = frozenset({"", "identity", "none", "gzip", "x-gzip"})
"""Of these, the first bytes of the body say all."""

_plain = re.compile(rb"\xef\xbb\xbf|\s*(?:\{|\[\s*[\[{\"\]0-9]|data:|event:|id:|:\s)")
"""What begins so is JSON or events, whatever its label says: proxies decompress a body, and leave the label.

No deflated text begins so (RFC 1951), and a brotli stream that begins with a brace is empty (RFC 7932 section 9.1).
"""

_GZIP_BITS, _RAW_BITS = zlib.MAX_WBITS + 16, -zlib.MAX_WBITS
_ZLIB_METHOD, _ZLIB_CHECK = 8, 31


def decompression_of(encoding: str, begin: bytes) -> Decompression | None:
    """What decompresses a body of this ``Content-Encoding`` that begins so; None where it is not compressed.

    Raises UpstreamUncertain where nobody here can decompress it.
    """
    if begin.startswith(GZIP_MAGIC) or begin == GZIP_MAGIC[:1]:
        return Decompression(_GZIP_BITS, begin)
    encoding = encoding.strip().lower()
    if encoding in _KNOWN or not begin:
        return None
    if _plain.match(begin):
        return None
    if encoding == "deflate":
        has_header = begin[0] & 0x0F == _ZLIB_METHOD and int.from_bytes(begin[:2], "big") % _ZLIB_CHECK == 0
        return Decompression(zlib.MAX_WBITS if has_header else _RAW_BITS, begin)
    name = encoding if encoding.isascii() and encoding.isalnum() and len(encoding) <= len("x-compress") else "unknown"
    raise UpstreamUncertain(f"The provider's answer is compressed ({name}), which it was asked not to be.")


def decompressed(encoding: str, body: bytes, limit_bytes: int) -> bytes:
    """As much of a body as can be decompressed, within ``limit_bytes``; all of it where it is not compressed."""
    try:
        decompression = decompression_of(encoding, body)
        if decompression is None:
            return body
        parts = []
        while limit_bytes > 0 and (part := decompression.take()):
            parts.append(part[:limit_bytes])
            limit_bytes -= len(part)
    except UpstreamUncertain:
        return b""
    return b"".join(parts)


class Decompression:
    """One body on its way: ``take`` until there is nothing, ``feed`` more, and ``finish`` at its end."""

    __slots__ = ("_bits", "_has_ended", "_is_full", "_member", "_waiting")

    def __init__(self, bits: int, begin: bytes) -> None:
        """Begin with the first bytes of the body; ``bits`` are those of ``zlib.decompressobj``."""
        self._bits = bits
        self._member = zlib.decompressobj(bits)
        self._waiting = begin
        self._is_full = False
        self._has_ended = False
        """Nothing but padding, or what is not of the body, can follow."""

    def feed(self, piece: bytes) -> None:
        """More of the body, where ``take`` has given all."""
        self._waiting = b"" if self._has_ended else self._waiting + piece

    def take(self) -> bytes:
        """At most 64 KiB of what is decompressed; nothing where more has to be fed.

        Raises UpstreamUncertain where it cannot be decompressed.
        """
        while (self._waiting or self._is_full) and self._has_member():
            try:
                taken = self._member.decompress(self._waiting, STEP_BYTES)
            except zlib.error:
                raise UpstreamUncertain("The provider's answer cannot be decompressed.") from None
            self._waiting = self._member.unused_data or self._member.unconsumed_tail
            # The last bytes of a long repetition may be left within, though all of the input was taken.
            self._is_full = len(taken) == STEP_BYTES and not self._member.eof
            if taken:
                return taken
        return b""

    def finish(self) -> None:
        """The body has ended. Raises UpstreamUncertain where it ended too early."""
        if not self._member.eof:
            raise UpstreamUncertain("The provider's answer broke off.")

    def _has_member(self) -> bool:
        """Whether what waits is of a member; each that has ended may be followed by another (RFC 1952 section 2.2)."""
        if not self._member.eof:
            return True
        waiting = self._waiting.lstrip(b"\0")
        if self._bits == _GZIP_BITS and waiting[:2] == GZIP_MAGIC:
            self._member, self._waiting = zlib.decompressobj(self._bits), waiting
            return True
        may_go_on = self._bits == _GZIP_BITS and waiting in (b"", GZIP_MAGIC[:1])
        self._waiting, self._has_ended = (waiting, False) if may_go_on else (b"", True)
        return False


class BodyReader:
    """Reads a body that may be compressed, of which ``read_as_sent`` gives the next piece, and nothing at its end."""

    __slots__ = ("_decompression", "_encoding", "_has_begun", "_limit_bytes", "_read_as_sent", "_size")

    def __init__(self, encoding: str, read_as_sent: Callable[[], Awaitable[bytes]], limit_bytes: int) -> None:
        """``encoding`` is the ``Content-Encoding``; at most ``limit_bytes`` are decompressed."""
        self._encoding = encoding
        self._read_as_sent = read_as_sent
        self._limit_bytes = limit_bytes
        self._has_begun = False
        self._decompression: Decompression | None = None
        self._size = 0

    @property
    def is_plain(self) -> bool:
        """Whether it is known by now that the body is not compressed, so that pieces may be read as they were sent."""
        return self._has_begun and self._decompression is None

    async def read(self) -> bytes:
        """The next piece, nothing at the end.

        Raises UpstreamUncertain where it cannot be decompressed, or gets too long.
        """
        if self._decompression is not None:
            return await self._read(self._decompression)
        piece = await self._read_as_sent()
        if self._has_begun:
            return piece
        self._has_begun = True
        while len(piece) == 1 and (more := await self._read_as_sent()):
            piece += more
        self._decompression = decompression_of(self._encoding, piece)
        return piece if self._decompression is None else await self._read(self._decompression)

    async def _read(self, decompression: Decompression) -> bytes:
        while not (piece := decompression.take()):
            sent = await self._read_as_sent()
            if not sent:
                decompression.finish()
                return b""
            decompression.feed(sent)
        self._size += len(piece)
        if self._size > self._limit_bytes:
            raise too_long(self._limit_bytes)
        return piece


def too_long(limit_bytes: int) -> UpstreamUncertain:
    """The error where an answer has more than ``limit_bytes``."""
    return UpstreamUncertain(f"The provider's answer is longer than {limit_bytes:,} bytes.")
