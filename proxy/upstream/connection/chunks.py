"""A body in chunks, unwrapped as it comes (RFC 9112 section 7.1). No I/O.

Where it ends is known to the byte: what stands behind it belongs to nobody.
"""

from __future__ import annotations

import re
from enum import IntEnum

LINE_BYTES = 4_096
"""The longest line with the size of a chunk, its extensions included."""

TRAILER_BYTES = 65_536
"""Of all trailers together; past it the body is whole all the same, and its connection is not used again."""

_size = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?\r?\n")
_next_size = re.compile(rb"\r\n([0-9A-Fa-f]{1,15})\r\n")
_trailer = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r?\n")
_LINE_ENDS = (b"\r\n", b"\n")


class _State(IntEnum):
    SIZE = 0
    DATA = 1
    AFTER_DATA = 2
    TRAILER = 3
    END = 4


_LIMITS = {_State.SIZE: LINE_BYTES, _State.AFTER_DATA: 2, _State.TRAILER: TRAILER_BYTES}


class Chunks:
    """Of one body. ``fault`` says why what came is none; ``is_clean`` that nothing odd stood in or behind it."""

    __slots__ = ("_left", "_line", "_state", "_trailer_bytes", "fault", "is_clean")

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._state = _State.SIZE
        self._left = self._trailer_bytes = 0
        self._line = b""
        self.fault = ""
        self.is_clean = True

    @property
    def has_ended(self) -> bool:
        """Whether its last line has come."""
        return self._state is _State.END

    @property
    def has_all_data(self) -> bool:
        """Whether its last chunk has come: only trailers, which nobody reads, may be missing."""
        return self._state >= _State.TRAILER

    def feed(self, data: bytes) -> bytes:
        """What ``data`` has of the body, maybe nothing. After its end, or a ``fault``, it is not called again."""
        at, end = 0, len(data)
        parts = []
        while at < end:
            if self._state is _State.DATA:
                taken = min(self._left, end - at)
                parts.append(data[at : at + taken])
                at += taken
                self._left -= taken
                if not self._left:
                    # Two lines for each chunk would hold the loop for long where each is a few bytes.
                    found = _next_size.match(data, at)
                    if found is None or not (size := int(found[1], 16)):
                        self._state = _State.AFTER_DATA
                        continue
                    at, self._left = found.end(), size
                continue
            at = self._read_line(data, at)
            if self.fault:
                break
            if self._state is _State.END:
                self.is_clean = self.is_clean and at == end
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_line(self, data: bytes, at: int) -> int:
        """Read to the end of a line, or as far as ``data`` goes; where that is."""
        line_end = data.find(b"\n", at)
        known, self._line = self._line, b""
        limit = _LIMITS[self._state]
        if line_end < 0:
            self._line = known + data[at : at + limit + 1]
            if len(self._line) > limit:
                self._take_line(self._line)
            return len(data)
        line = known + data[at : line_end + 1]
        self._take_line(line)
        return line_end + 1

    def _take_line(self, line: bytes) -> None:
        state = self._state
        if state is _State.SIZE:
            found = _size.fullmatch(line) if len(line) <= LINE_BYTES else None
            if found is None:
                self.fault = "a chunk has no size"
                return
            self._left = int(found[1], 16)
            self._state = _State.DATA if self._left else _State.TRAILER
        elif state is _State.AFTER_DATA:
            if line not in _LINE_ENDS:
                self.fault = "a chunk is longer than its size"
                return
            self._state = _State.SIZE
        elif line in _LINE_ENDS:
            self._state = _State.END
        else:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > TRAILER_BYTES or _trailer.fullmatch(line) is None:
                self.is_clean = False
            if self._trailer_bytes > TRAILER_BYTES:
                self._state = _State.END
