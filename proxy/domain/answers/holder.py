"""Holds an answer, or an event of it, while it is small, so that it may still become an error."""

from __future__ import annotations

import orjson

from proxy.domain.errors import ProxyError
from proxy.domain.parsing.server_sent_events import KEEP_ALIVE, write_event

HELD_BYTES_LIMIT = 65_536


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
        if self._held_bytes <= HELD_BYTES_LIMIT:
            return b""
        return self.end()

    def end(self, piece: bytes = b"") -> bytes:
        """Take the last of the answer; return all that is still to be sent."""
        held, self._held = self._held or [], None
        return b"".join([*held, piece])


def error_event(error: ProxyError) -> bytes:
    """An error in a stream, as OpenAI's SDKs know it."""
    return write_event(orjson.dumps({"type": "error", **error.body()}), b"error")


class EventHolder:
    """Holds one event while it is small, and the last line end of an event that was charged for.

    So a client has an image only when it has been charged: whoever ends the answer settles before.
    """

    __slots__ = ("_event", "_event_bytes", "_kept", "_out", "begun")

    def __init__(self) -> None:
        """Start before the first event."""
        self._out: list[bytes] = []
        self._event: list[bytes] = []
        self._event_bytes = 0
        self._kept = b""
        self.begun = False

    def write(self, piece: bytes) -> None:
        """More of the event; past 64 KiB it is on its way."""
        if self.begun:
            self._out.append(piece)
            return
        self._event.append(piece)
        self._event_bytes += len(piece)
        if self._event_bytes > HELD_BYTES_LIMIT:
            self._begin()

    def end(self, *, charged: bool) -> None:
        """The event is whole."""
        if not self.begun:
            self._begin()
        self._out.append(b"\n" if charged else b"\n\n")
        self._kept = b"\n" if charged else b""
        self.begun = False

    def drop(self) -> None:
        """Send nothing of an event that is still held."""
        self._event, self._event_bytes = [], 0

    def insert(self, event: bytes) -> None:
        """An event of our own, between two others."""
        self._out += self._kept, event
        self._kept = b""

    @property
    def comment(self) -> bytes:
        """A comment, but not within an event."""
        return b"" if self.begun else KEEP_ALIVE

    def write_error(self, error: ProxyError) -> bytes | None:
        """An event with ``error``; None within an event that is on its way."""
        if self.begun:
            return None
        self.drop()
        self.insert(error_event(error))
        return self.take()

    def take(self) -> bytes:
        """What may be sent."""
        out, self._out = self._out, []
        return b"".join(out)

    def take_last(self) -> bytes:
        """What is left at the end."""
        self.insert(b"")
        return self.take()

    def _begin(self) -> None:
        self._out += self._kept, *self._event
        self._kept = b""
        self.drop()
        self.begun = True
