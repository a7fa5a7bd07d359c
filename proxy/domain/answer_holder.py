"""Holds an answer while it is small, so that it may still become an error."""

from __future__ import annotations

WHOLE_BYTES_LIMIT = 65_536


class AnswerHolder:
    """Whoever has no room for an error in the answer itself writes through this."""

    __slots__ = ("_held", "_held_bytes")

    def __init__(self) -> None:
        """Hold all, until it is more than 64 KiB."""
        self._held: list[bytes] | None = []
        self._held_bytes = 0

    @property
    def begun(self) -> bool:
        """Whether the answer is on its way."""
        return self._held is None

    def pass_on(self, piece: bytes) -> bytes:
        """Take more of the answer; return what may be sent."""
        if self._held is None:
            return piece
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes <= WHOLE_BYTES_LIMIT:
            return b""
        return self.end()

    def end(self, piece: bytes = b"") -> bytes:
        """Take the last of the answer; return all that is still to be sent."""
        held, self._held = self._held or [], None
        return b"".join([*held, piece])
