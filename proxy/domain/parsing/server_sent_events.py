"""Server-sent events, read and written in pieces of any size.

The parsing is that of the WHATWG HTML standard, "Server-sent events"
(https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation). An event's data is handed
on as the slices that it came in: an image of ten megabytes in one line is never held.
"""

from __future__ import annotations

import re
from typing import Protocol

NAME_BYTES_LIMIT = 256
"""Of an event's name; what is longer is no name that anybody knows."""

_FIELD_BYTES_LIMIT = len(b"event")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CARRIAGE_RETURN, _LINE_FEED, _SPACE = b"\r\n "

_FIELD, _LEAD, _DATA, _EVENT, _SKIP = range(5)

# Lines that say nothing, however many of them: between two events, and within one, where a blank line would end it.
_nothing_between = re.compile(rb"(?::[^\r\n]*+(?:\r\n?|\n)|[\r\n])*+")
_nothing_within = re.compile(rb"(?::[^\r\n]*+(?:\r\n?|\n))*+")

DONE = b"[DONE]"
"""The data of the event by which OpenAI's streams end; it is not JSON."""

KEEP_ALIVE = b": keep-alive\n"
"""A comment, which clients skip; it may stand wherever a line may begin."""


class EventListener(Protocol):
    """Who hears of the events while they arrive."""

    __slots__ = ()

    def data(self, piece: bytes, name: bytes) -> None:
        """More of this event's data; two lines of data come with a newline between them.

        ``name`` is what has been read of the event's name so far, which most senders write first.
        """
        ...

    def end_event(self, name: bytes) -> None:
        """The event is whole. One without data is none."""
        ...


class EventReader:
    """Feed it the stream as it comes. What no blank line has ended when the stream ends is no event."""

    __slots__ = (
        "_after_carriage_return", "_begun", "_field", "_has_data", "_line_feed", "_listener", "_name", "_state",
        "_value",
    )  # fmt: skip

    _listener: EventListener

    def __init__(self) -> None:
        """Start before the first byte."""
        self._state = _FIELD
        self._field = b""
        self._value = b""
        self._name = b""
        self._has_data = False
        self._begun = False
        self._after_carriage_return = False
        self._line_feed = -1

    @property
    def has_whole_line(self) -> bool:
        """Whether nothing follows the last line's end."""
        return self._state == _FIELD and not self._field

    @property
    def is_in_data(self) -> bool:
        """Whether what follows, up to a line's end, is more of a line of data."""
        return self._state == _DATA

    def feed(self, chunk: bytes, listener: EventListener) -> None:
        """Take the next piece of the stream; ``listener``, which may hold this reader, is known no longer than that."""
        self._listener = listener
        try:
            self._read(chunk)
        finally:
            del self._listener

    def finish(self, listener: EventListener) -> None:
        """The stream has ended: data whose lines are whole is an event also without the blank line after it."""
        self._listener = listener
        try:
            if not self.has_whole_line:
                self._read(b"\n")
            self._end_event()
        finally:
            del self._listener

    def _read(self, chunk: bytes) -> None:
        if not self._begun:
            chunk = self._skip_mark(chunk)
        at, end = 0, len(chunk)
        self._line_feed = -1
        while at < end:
            if self._after_carriage_return:
                self._after_carriage_return = False
                if chunk[at] == _LINE_FEED:
                    at += 1
                    continue
            if self._state == _LEAD:
                at = self._begin_value(chunk, at)
            elif self._state == _FIELD:
                at = self._read_field(chunk, at)
            else:
                at = self._read_value(chunk, at)
            if self._state == _FIELD and not self._field and not self._after_carriage_return:
                at = self._skip_nothing(chunk, at)

    def _skip_mark(self, chunk: bytes) -> bytes:
        self._field += chunk
        if len(self._field) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(self._field):
            return b""
        self._begun = True
        chunk, self._field = self._field.removeprefix(_BYTE_ORDER_MARK), b""
        return chunk

    def _skip_nothing(self, chunk: bytes, at: int) -> int:
        nothing = _nothing_within if self._has_data or self._name else _nothing_between
        match = nothing.match(chunk, at)
        stop = at if match is None else match.end()
        self._after_carriage_return = stop > at and chunk[stop - 1] == _CARRIAGE_RETURN
        return stop

    # --- One line. Each step reads at `at` and returns where the next one goes on ------------------------------------

    def _read_field(self, chunk: bytes, at: int) -> int:
        stop = self._line_end(chunk, at)
        colon = chunk.find(b":", at, stop)
        end = stop if colon < 0 else colon
        if len(self._field) <= _FIELD_BYTES_LIMIT:
            self._field += chunk[at : min(end, at + _FIELD_BYTES_LIMIT + 1)]
        if colon >= 0:
            self._state = _LEAD
            return colon + 1
        if stop == len(chunk):
            return stop
        if not self._field:
            self._end_event()
        else:
            self._choose()
            self._end_line()
        return self._after_line(chunk, stop)

    def _begin_value(self, chunk: bytes, at: int) -> int:
        self._choose()
        return at + 1 if chunk[at] == _SPACE else at

    def _choose(self) -> None:
        field, self._field = self._field, b""
        if field == b"data":
            self._state = _DATA
            if self._has_data:
                self._listener.data(b"\n", self._name)
            self._has_data = True
        else:
            self._state = _EVENT if field == b"event" else _SKIP
            self._value = b""

    def _read_value(self, chunk: bytes, at: int) -> int:
        stop = self._line_end(chunk, at)
        if stop > at:
            if self._state == _DATA:
                self._listener.data(chunk[at:stop], self._name)
            elif self._state == _EVENT and len(self._value) <= NAME_BYTES_LIMIT:
                self._value += chunk[at : min(stop, at + NAME_BYTES_LIMIT + 1)]
        if stop == len(chunk):
            return stop
        self._end_line()
        return self._after_line(chunk, stop)

    def _end_line(self) -> None:
        if self._state == _EVENT:
            self._name = self._value if len(self._value) <= NAME_BYTES_LIMIT else b""
        self._state = _FIELD

    def _after_line(self, chunk: bytes, stop: int) -> int:
        self._after_carriage_return = chunk[stop] == _CARRIAGE_RETURN
        return stop + 1

    def _line_end(self, chunk: bytes, at: int) -> int:
        if self._line_feed < at:
            # Once for all lines before it: each line may end in a carriage return.
            found = chunk.find(b"\n", at)
            self._line_feed = len(chunk) if found < 0 else found
        # Only up to the line feed: a search to the end of the chunk for each short line would cost more than the rest.
        carriage_return = chunk.find(b"\r", at, self._line_feed)
        return self._line_feed if carriage_return < 0 else carriage_return

    def _end_event(self) -> None:
        name, self._name = self._name, b""
        if self._has_data:
            self._has_data = False
            self._listener.end_event(name)


def begin_event(name: bytes) -> bytes:
    """The lines of an event up to its data, which must hold no line end; ``name`` may be empty."""
    return b"event: %b\ndata: " % name if name else b"data: "


def write_event(data: bytes, name: bytes = b"") -> bytes:
    """A whole event; ``data`` holds no line end."""
    return begin_event(name) + data + b"\n\n"
