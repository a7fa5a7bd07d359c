"""JSON (RFC 8259) read in pieces of any size, token by token; and written again from tokens.

Strings are handed on as the slices that they came in, escapes and all, so that one of megabytes is never held; what is
not valid in them is mended (``StringMender``). The state is a few bytes, whatever the size of the document.

Within objects and arrays that nobody wants only brackets and strings are checked: providers write much that is not
meant for clients, and not all of it is JSON.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

import orjson

from proxy.domain.parsing.json_strings import StringEnds, StringMender

NAME_BYTES_LIMIT: Final = 256
LITERAL_BYTES_LIMIT: Final = 64
DEPTH_LIMIT: Final = 64

_BLANKS: Final = b" \t\n\r"
_not_blank = re.compile(rb"[^ \t\n\r]")
_after_literal = re.compile(rb"[^-+.0-9A-Za-z]")
_literal = re.compile(rb"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
# Printable ASCII without escapes: nothing has to be mended.
_short_string = re.compile(rb'"([ !#-\[\]-~]{0,512})"')
# A name without escapes, and its colon.
_short_name = re.compile(rb'"([ !#-\[\]-~]{0,256})"[ \t\n\r]*+:')
# All up to the next bracket or to a string that is not whole; possessive, for it never has to look back.
_whole_strings = re.compile(rb'[^][{}"]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^][{}"]*+)*+', re.DOTALL)
_closing: Final = {ord("{"): ord("}"), ord("["): ord("]")}

_QUOTE, _COMMA, _COLON = b'",:'
OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY = b"{}[]"


class MalformedResponse(ValueError):
    """The provider's answer is not what it should be; the message says where it stops being that."""


class JsonReader(StringEnds, ABC):
    """Feed it one document as it comes; ``complete`` is true when that is whole.

    ``rest`` is what follows it in the piece that was read last, blanks before it excepted. A subclass overrides the
    methods that are called with each token.
    """

    __slots__ = ("_in_token", "_mender", "_open", "_skipped_depth", "_step", "_token", "complete", "rest")

    def __init__(self) -> None:
        """Start before the first byte."""
        super().__init__()
        self.complete = False
        self.rest = b""
        self._mender = StringMender()
        self._open = bytearray()
        self._skipped_depth = 0
        # Functions, not bound methods: those would be a cycle, which holds its memory until it is collected.
        self._step: _Step = JsonReader._read_value
        self._token = b""
        self._in_token = False

    # --- The tokens, in their order ----------------------------------------------------------------------------------

    @abstractmethod
    def begin(self, mark: int) -> bool:
        """An object or an array begins; ``mark`` is its bracket. False to have all of it skipped."""

    def end(self, mark: int) -> None:
        """It ends."""

    def name(self, spelling: bytes, name: bytes) -> None:
        """A member's name, as it was spelt and as it reads."""

    def literal(self, text: bytes) -> None:
        """A number, ``true``, ``false`` or ``null``."""

    def begin_string(self) -> None:
        """A string that is a value begins."""

    def string(self, piece: bytes) -> None:
        """More of it, with its escapes."""

    def end_string(self) -> None:
        """It ends."""

    def skipped(self, data: bytes, at: int, end: int) -> None:
        """More of what is skipped, brackets included: ``data`` from ``at`` to ``end``. It need not be JSON."""

    def end_skipped(self) -> None:
        """It ends."""

    @property
    def in_string(self) -> bool:
        """Whether a string that is a value has begun, and not ended."""
        return self._step is JsonReader._read_string

    def is_within_string(self, chunk: bytes) -> bool:
        """Whether all of ``chunk`` is more of a value's string, to be passed on as it is: it need not be read then."""
        if self._step is not JsonReader._read_string or self._is_escaped or b'"' in chunk:
            return False
        return self._mender.passes(chunk)

    # --- Feeding -----------------------------------------------------------------------------------------------------

    def read(self, chunk: bytes) -> None:
        """Take the next piece. Raises MalformedResponse where it is not JSON."""
        at, end = 0, len(chunk)
        while at < end:
            if chunk[at] in _BLANKS and not self._in_token:
                match = _not_blank.search(chunk, at)
                if match is None:
                    return
                at = match.start()
            at = self._step(self, chunk, at)

    def read_end(self) -> None:
        """The document has ended. Raises MalformedResponse where it is not whole."""
        if self._step is JsonReader._read_literal and not self._open:
            self.read(b" ")
        if not self.complete:
            raise MalformedResponse("the body ends in the middle of the answer")

    # --- Each step reads at `at` and returns where the next one goes on ----------------------------------------------

    def _read_value(self, data: bytes, at: int) -> int:
        first = data[at]
        if first == _QUOTE:
            match = _short_string.match(data, at)
            self.begin_string()
            if match:
                self.string(match[1])
                self.end_string()
                self._end_value()
                return match.end()
            self._begin_token(JsonReader._read_string)
            return at + 1
        if first in _closing:
            if len(self._open) == DEPTH_LIMIT:
                raise MalformedResponse("a value is nested too deeply")
            self._open.append(first)
            if self.begin(first):
                self._step = JsonReader._read_first_name if first == OPEN_OBJECT else JsonReader._read_first_item
                return at + 1
            self._skipped_depth = len(self._open) - 1
            self._in_token = True
            self._step = JsonReader._skip_nested
            return self._skip_nested(data, at + 1, at)
        self._begin_token(JsonReader._read_literal)
        return at

    def _read_first_item(self, data: bytes, at: int) -> int:
        return self._close(at, CLOSE_ARRAY) if data[at] == CLOSE_ARRAY else self._read_value(data, at)

    def _read_first_name(self, data: bytes, at: int) -> int:
        return self._close(at, CLOSE_OBJECT) if data[at] == CLOSE_OBJECT else self._read_name(data, at)

    def _read_name(self, data: bytes, at: int) -> int:
        match = _short_name.match(data, at)
        if match:
            self.name(match[1], match[1])
            self._step = JsonReader._read_value
            return match.end()
        if data[at] != _QUOTE:
            raise MalformedResponse("a name was expected")
        self._begin_token(JsonReader._read_long_name)
        return at + 1

    def _read_colon(self, data: bytes, at: int) -> int:
        if data[at] != _COLON:
            raise MalformedResponse("a colon was expected")
        self._step = JsonReader._read_value
        return at + 1

    def _read_after_value(self, data: bytes, at: int) -> int:
        is_object = self._open[-1] == OPEN_OBJECT
        if data[at] == _COMMA:
            self._step = JsonReader._read_name if is_object else JsonReader._read_value
            return at + 1
        closer = CLOSE_OBJECT if is_object else CLOSE_ARRAY
        if data[at] != closer:
            raise MalformedResponse("a comma or the end of an object or array was expected")
        return self._close(at, closer)

    def _close(self, at: int, closer: int) -> int:
        self._open.pop()
        self.end(closer)
        self._end_value()
        return at + 1

    def _end_value(self) -> None:
        self._in_token = False
        self._token = b""
        self.complete = not self._open
        self._step = JsonReader._read_after_value if self._open else JsonReader._read_after_end

    def _read_after_end(self, data: bytes, at: int) -> int:
        self.rest = data[at:]
        return len(data)

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
        self.literal(self._token)
        self._end_value()
        return end

    def _read_long_name(self, data: bytes, at: int) -> int:
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
        self.name(self._token, name.encode())
        self._in_token = False
        self._step = JsonReader._read_colon
        return end + 1

    def _read_string(self, data: bytes, at: int) -> int:
        end = self._find_string_end(data, at)
        stop = len(data) if end < 0 else end
        if stop > at and (piece := self._mender.add(data[at:stop])):
            self.string(piece)
        if end < 0:
            return stop
        if rest := self._mender.end():
            self.string(rest)
        self.end_string()
        self._end_value()
        return end + 1

    # --- What nobody wants -------------------------------------------------------------------------------------------

    def _skip_nested(self, data: bytes, at: int, begin: int | None = None) -> int:
        begin = at if begin is None else begin
        is_open = self._open
        while True:
            match = _whole_strings.match(data, at)
            at = match.end() if match else at
            if at == len(data):
                self.skipped(data, begin, at)
                return at
            mark = data[at]
            at += 1
            if mark == _QUOTE:
                # A string that goes on in the next piece.
                self.skipped(data, begin, at)
                self._is_escaped = False
                self._step = JsonReader._skip_string
                return at
            if mark in _closing:
                if len(is_open) == DEPTH_LIMIT:
                    raise MalformedResponse("a value is nested too deeply")
                is_open.append(mark)
            elif _closing[is_open.pop()] != mark:
                raise MalformedResponse("brackets do not match")
            elif len(is_open) == self._skipped_depth:
                self.skipped(data, begin, at)
                self.end_skipped()
                self._end_value()
                return at

    def _skip_string(self, data: bytes, at: int) -> int:
        end = self._find_string_end(data, at)
        stop = len(data) if end < 0 else end + 1
        self.skipped(data, at, stop)
        if end >= 0:
            self._step = JsonReader._skip_nested
        return stop


_Step = Callable[[JsonReader, bytes, int], int]


class JsonWriter:
    """Writes tokens down in canonical form; ``take`` gives what has been written since."""

    __slots__ = ("_out", "_separator")

    def __init__(self) -> None:
        """Start with nothing."""
        self._out: list[bytes] = []
        self._separator = b""

    def begin(self, mark: int) -> None:
        """An object or an array begins."""
        self._out += self._separator, b"{" if mark == OPEN_OBJECT else b"["
        self._separator = b""

    def end(self, mark: int) -> None:
        """It ends."""
        self._out.append(b"}" if mark == CLOSE_OBJECT else b"]")
        self._separator = b","

    def name(self, spelling: bytes) -> None:
        """A member's name, escaped as it has to be."""
        self._out.append(b'%b"%b":' % (self._separator, spelling))
        self._separator = b""

    def literal(self, text: bytes) -> None:
        """A number, true, false, null, or any other whole value."""
        self._out += self._separator, text
        self._separator = b","

    def begin_string(self) -> None:
        """A string begins."""
        self._out += self._separator, b'"'

    def string(self, piece: bytes) -> None:
        """More of it, escaped as it was."""
        self._out.append(piece)

    def end_string(self) -> None:
        """The string ends."""
        self._out.append(b'"')
        self._separator = b","

    def take(self) -> bytes:
        """What has been written since the last time."""
        out, self._out = self._out, []
        return b"".join(out)
