"""JSON (RFC 8259) read in pieces of any size, and told token by token; and written again from tokens.

Strings are told as the slices that they came in, escapes and all, so that one of megabytes is never held; what is not
valid in them is mended (``StringMender``). The state is a few bytes, whatever the size of the document.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

import orjson

from proxy.domain.json_strings import StringEnds, StringMender
from proxy.domain.response_scanner import DEPTH_LIMIT, LITERAL_BYTES_LIMIT, NAME_BYTES_LIMIT, MalformedResponse

_BLANKS: Final = b" \t\n\r"
_not_blank = re.compile(rb"[^ \t\n\r]")
_after_literal = re.compile(rb"[^-+.0-9A-Za-z]")
_literal = re.compile(rb"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
# Printable ASCII without escapes: nothing has to be mended.
_short_string = re.compile(rb'"([ !#-\[\]-~]{0,512})"')

_QUOTE, _COMMA, _COLON = b'",:'
OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY = b"{}[]"

_Step = Callable[[bytes, int], int]


class JsonSink(Protocol):
    """Who is told the tokens of a document, in their order."""

    def begin(self, mark: int) -> None:
        """An object or an array begins; ``mark`` is its bracket."""
        ...

    def end(self, mark: int) -> None:
        """It ends."""
        ...

    def name(self, spelling: bytes, name: bytes) -> None:
        """A member's name, as it was spelt and as it reads."""
        ...

    def literal(self, text: bytes) -> None:
        """A number, ``true``, ``false`` or ``null``."""
        ...

    def begin_string(self) -> None:
        """A string that is a value begins."""
        ...

    def string(self, piece: bytes) -> None:
        """More of it, with its escapes."""
        ...

    def end_string(self) -> None:
        """It ends."""
        ...


class JsonReader(StringEnds):
    """Feed it one document as it comes; ``complete`` tells when that is whole, and only blanks may follow."""

    __slots__ = ("_in_token", "_mender", "_open", "_sink", "_step", "_token", "complete")

    def __init__(self, sink: JsonSink) -> None:
        """Start before the first byte, and tell ``sink``."""
        super().__init__()
        self.complete = False
        self._sink = sink
        self._mender = StringMender()
        self._open = bytearray()
        self._step: _Step = self._value
        self._token = b""
        self._in_token = False

    def feed(self, chunk: bytes) -> None:
        """Take the next piece. Raises MalformedResponse where it is not JSON."""
        at, end = 0, len(chunk)
        while at < end:
            if chunk[at] in _BLANKS and not self._in_token:
                match = _not_blank.search(chunk, at)
                if match is None:
                    return
                at = match.start()
            at = self._step(chunk, at)

    def finish(self) -> None:
        """The document has ended. Raises MalformedResponse where it is not whole."""
        if self._step == self._read_literal and not self._open:
            self.feed(b" ")
        if not self.complete:
            raise MalformedResponse("the body ends in the middle of the answer")

    # --- Each step reads at `at` and returns where the next one goes on ----------------------------------------------

    def _value(self, data: bytes, at: int) -> int:
        first = data[at]
        if first == _QUOTE:
            match = _short_string.match(data, at)
            self._sink.begin_string()
            if match:
                self._sink.string(match[1])
                self._sink.end_string()
                self._end_value()
                return match.end()
            self._begin_token(self._read_string)
            return at + 1
        if first in (OPEN_OBJECT, OPEN_ARRAY):
            if len(self._open) == DEPTH_LIMIT:
                raise MalformedResponse("a value is nested too deeply")
            self._open.append(first)
            self._sink.begin(first)
            self._step = self._first_name if first == OPEN_OBJECT else self._first_item
            return at + 1
        self._begin_token(self._read_literal)
        return at

    def _first_item(self, data: bytes, at: int) -> int:
        return self._close(at, CLOSE_ARRAY) if data[at] == CLOSE_ARRAY else self._value(data, at)

    def _first_name(self, data: bytes, at: int) -> int:
        return self._close(at, CLOSE_OBJECT) if data[at] == CLOSE_OBJECT else self._name(data, at)

    def _name(self, data: bytes, at: int) -> int:
        match = _short_string.match(data, at)
        if match and len(match[1]) <= NAME_BYTES_LIMIT:
            self._sink.name(match[1], match[1])
            self._step = self._colon
            return match.end()
        if data[at] != _QUOTE:
            raise MalformedResponse("a name was expected")
        self._begin_token(self._read_name)
        return at + 1

    def _colon(self, data: bytes, at: int) -> int:
        if data[at] != _COLON:
            raise MalformedResponse("a colon was expected")
        self._step = self._value
        return at + 1

    def _after_value(self, data: bytes, at: int) -> int:
        is_object = self._open[-1] == OPEN_OBJECT
        if data[at] == _COMMA:
            self._step = self._name if is_object else self._value
            return at + 1
        closer = CLOSE_OBJECT if is_object else CLOSE_ARRAY
        if data[at] != closer:
            raise MalformedResponse("a comma or the end of an object or array was expected")
        return self._close(at, closer)

    def _close(self, at: int, closer: int) -> int:
        self._open.pop()
        self._sink.end(closer)
        self._end_value()
        return at + 1

    def _end_value(self) -> None:
        self._in_token = False
        self.complete = not self._open
        self._step = self._after_value if self._open else self._after_end

    def _after_end(self, _data: bytes, _at: int) -> int:
        raise MalformedResponse("something follows the end of the answer")

    # --- Tokens that may go on in the next piece ---------------------------------------------------------------------

    def _begin_token(self, step: _Step) -> None:
        self._token = b""
        self._in_token = True
        self._is_escaped = False
        self._step = step

    def _read_literal(self, data: bytes, at: int) -> int:
        match = _after_literal.search(data, at)
        end = match.start() if match else len(data)
        self._token += data[at : min(end, at + LITERAL_BYTES_LIMIT + 1)]
        if len(self._token) > LITERAL_BYTES_LIMIT:
            raise MalformedResponse("a number is too long")
        if match is None:
            return end
        if not _literal.fullmatch(self._token):
            raise MalformedResponse("a value was expected")
        self._sink.literal(self._token)
        self._end_value()
        return end

    def _read_name(self, data: bytes, at: int) -> int:
        end = self._find_string_end(data, at)
        stop = len(data) if end < 0 else end
        if len(self._token) + stop - at > NAME_BYTES_LIMIT:
            raise MalformedResponse("a name is too long")
        self._token += data[at:stop]
        if end < 0:
            return stop
        try:
            name: str = orjson.loads(b'"%b"' % self._token)
        except orjson.JSONDecodeError:
            raise MalformedResponse("a name is not valid JSON") from None
        self._sink.name(self._token, name.encode())
        self._in_token = False
        self._step = self._colon
        return end + 1

    def _read_string(self, data: bytes, at: int) -> int:
        end = self._find_string_end(data, at)
        stop = len(data) if end < 0 else end
        if stop > at and (piece := self._mender.add(data[at:stop])):
            self._sink.string(piece)
        if end < 0:
            return stop
        if rest := self._mender.end():
            self._sink.string(rest)
        self._sink.end_string()
        self._end_value()
        return end + 1


class JsonWriter:
    """Writes tokens down in canonical form; ``take`` gives what has been written since."""

    __slots__ = ("_out", "_separator")

    def __init__(self) -> None:
        """Start with nothing."""
        self._out: list[bytes] = []
        self._separator = b""

    def begin(self, mark: int) -> None:
        """See ``JsonSink``."""
        self._out += self._separator, b"{" if mark == OPEN_OBJECT else b"["
        self._separator = b""

    def end(self, mark: int) -> None:
        """See ``JsonSink``."""
        self._out.append(b"}" if mark == CLOSE_OBJECT else b"]")
        self._separator = b","

    def name(self, spelling: bytes) -> None:
        """A member's name, escaped as it has to be."""
        self._out.append(b'%b"%b":' % (self._separator, spelling))
        self._separator = b""

    def literal(self, text: bytes) -> None:
        """See ``JsonSink``; any whole value will do."""
        self._out += self._separator, text
        self._separator = b","

    def begin_string(self) -> None:
        """See ``JsonSink``."""
        self._out += self._separator, b'"'

    def string(self, piece: bytes) -> None:
        """See ``JsonSink``."""
        self._out.append(piece)

    def end_string(self) -> None:
        """See ``JsonSink``."""
        self._out.append(b'"')
        self._separator = b","

    def take(self) -> bytes:
        """What has been written since the last time."""
        out, self._out = self._out, []
        return b"".join(out)
