"""The scanner that a provider's answer passes through on its way to the client.

It reads OpenAI's images response (``created``, ``data``, …) in pieces of any size, and writes it again in canonical
form with only what is on the allow-list: billing never gets out. On the way it counts the images and keeps the
provider's ``usage`` for the ledger. It holds no more than a few bytes of state, whatever the size of the answer: the
end of a string is looked for with ``bytes.find``, and what stands in between is passed on as the slice it came in.

Inside of dropped values only brackets and strings are checked; everything passed on is checked as JSON (RFC 8259), and
what is not valid within a string is mended (``StringMender``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import orjson

from proxy.domain.catalog import IMAGES_LIMIT
from proxy.domain.image_addresses import read_lead
from proxy.domain.image_size import Size, SizeProbe, keep_size, read_size
from proxy.domain.json_strings import StringEnds, StringMender

_Written = dict[bytes, tuple[bytes, bytes]]


def _written(*names: str) -> _Written:
    """How each name is written: after a comma, and as the first of its object."""
    return {name.encode(): (f',"{name}":'.encode(), f'"{name}":'.encode()) for name in names}


TOP_LEVEL: Final = _written("created", "data", "background", "output_format", "quality", "size")
IN_AN_IMAGE: Final = _written("url", "b64_json", "revised_prompt", "media_type")
"""The allow-list: what a client sees of an answer and of each image in it; but for `data`, no objects and arrays."""

IMAGE_PAYLOADS: Final = frozenset({b"url", b"b64_json"})

NAME_BYTES_LIMIT: Final = 256
LITERAL_BYTES_LIMIT: Final = 64
USAGE_BYTES_LIMIT: Final = 16_384
DEPTH_LIMIT: Final = 64

_BLANKS: Final = b" \t\n\r"
_not_blank = re.compile(rb"[^ \t\n\r]")
# Most members are a plain name and a short value: one step takes them. `data` is never among them.
_short_member = re.compile(
    rb'[ \t\n\r]*+"(?!data")([A-Za-z0-9_]{0,64})"[ \t\n\r]*+:[ \t\n\r]*+'
    rb'("[ !#-\[\]-~]{0,512}"|(?:true|false|null|-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,18})?)(?=[,} \t\n\r]))'
)
# A whole name without escapes, and its colon.
_plain_name = re.compile(rb'"([A-Za-z0-9_]{0,64})"[ \t\n\r]*:')
_after_literal = re.compile(rb"[^-+.0-9A-Za-z]")
_literal = re.compile(rb"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
# All up to the next bracket or to a string that is not whole; possessive, for it never has to look back.
_whole_strings = re.compile(rb'[^][{}"]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^][{}"]*+)*+', re.DOTALL)
_EMPTY: Final = b'""'
_DATA: Final = b"data"
_USAGE: Final = b"usage"
_BASE64: Final = b"b64_json"
_URL: Final = b"url"
_closing: Final = {ord("{"): ord("}"), ord("["): ord("]")}

_QUOTE, _COMMA, _COLON, _NULL = b'",:n'
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b"{}[]"

_Step = Callable[[bytes, int], int]


class MalformedResponse(ValueError):
    """The provider's answer is not an images response; the message says where it stops being one."""


class ResponseScanner(StringEnds):
    """Feed it the body as it comes; pass on what it returns; then ``finish``.

    ``images`` counts those whose payload was there from the first byte to the last. ``usage`` is the provider's object,
    as JSON, or None where there was none or it was larger than 16 KiB.
    """

    __slots__ = (
        "_allowed", "_captured", "_captured_bytes", "_closers", "_counted", "_first", "_has_data", "_held",
        "_in_element", "_in_token", "_mender", "_name", "_out", "_passing", "_probe", "_step", "_string_bytes",
        "_token", "complete", "images", "sizes", "usage",
    )  # fmt: skip

    def __init__(self) -> None:
        """Start before the first byte of a body."""
        super().__init__()
        self.images = 0
        self.sizes: list[Size | None] = []
        self.usage: bytes | None = None
        self.complete = False
        self._probe = SizeProbe()
        self._mender = StringMender()
        self._step: _Step = self._start
        self._out: list[bytes] = []
        self._token = b""
        self._name = b""
        self._allowed = TOP_LEVEL
        self._has_data = False
        self._first = True
        self._in_element = False
        self._in_token = False
        self._counted = False
        self._passing = False
        self._string_bytes = 0
        self._held = b""
        self._closers = bytearray()
        self._captured: list[bytes] | None = None
        self._captured_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece of the body; return what of it may be passed on, which may be nothing.

        Raises MalformedResponse; what was returned before stays true.
        """
        at, end = 0, len(chunk)
        while at < end:
            step = _skip_blanks if chunk[at] in _BLANKS and not self._in_token else self._step
            at = step(chunk, at)
        out = self._out
        if not out:
            return b""
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out)

    def finish(self) -> None:
        """Say that the body has ended. Raises MalformedResponse where it ended too early."""
        if not self.complete:
            raise MalformedResponse("the body ends in the middle of the answer")
        if not self._has_data:
            raise MalformedResponse("the answer has no 'data'")

    # --- Objects and arrays. Each step reads at `at` and returns where the next one goes on --------------------------

    def _start(self, data: bytes, at: int) -> int:
        if data[at] != _OPEN_OBJECT:
            raise MalformedResponse("the body is not a JSON object")
        self._out.append(b"{")
        self._step = self._first_name
        return at + 1

    def _first_name(self, data: bytes, at: int) -> int:
        if data[at] == _CLOSE_OBJECT:
            self._end_object()
            return at + 1
        return self._next_name(data, at)

    def _next_name(self, data: bytes, at: int) -> int:
        while match := _short_member.match(data, at):
            self._take_short(match)
            at = match.end()
            if at == len(data) or data[at] != _COMMA:
                self._step = self._after_value
                return at
            at += 1
        self._step = self._next_name
        if at == len(data) or data[at] in _BLANKS:
            return at
        return self._long_member(data, at)

    def _take_short(self, match: re.Match[bytes]) -> None:
        name, value = match.groups()
        written = self._allowed.get(name)
        if written is None or (name == _URL and value[0] == _QUOTE and not read_lead(value, 1)):
            return
        self._out += written[self._first], value
        self._first = False
        if name in IMAGE_PAYLOADS and value[0] == _QUOTE and value != _EMPTY:
            self._count_image(read_size(value[1:-1]) if name == _BASE64 else None)

    def _long_member(self, data: bytes, at: int) -> int:
        match = _plain_name.match(data, at)
        if match:
            self._name = match[1]
            self._step = self._value
            return match.end()
        if data[at] != _QUOTE:
            raise MalformedResponse("a name was expected")
        self._token = b""
        self._in_token = True
        self._step = self._read_name
        return at + 1

    def _read_name(self, data: bytes, at: int) -> int:
        end = data.find(b'"', at)
        part = data[at:] if end < 0 else data[at:end]
        self._token += part
        if len(self._token) > NAME_BYTES_LIMIT:
            raise MalformedResponse("a name is too long")
        if end < 0:
            return len(data)
        token = self._token
        if token.endswith(b"\\") and (len(token) - len(token.rstrip(b"\\"))) % 2:
            self._token += b'"'
            return end + 1
        self._name = _decode(token)
        self._in_token = False
        self._step = self._colon
        return end + 1

    def _colon(self, data: bytes, at: int) -> int:
        if data[at] != _COLON:
            raise MalformedResponse("a colon was expected")
        self._step = self._value
        return at + 1

    def _after_value(self, data: bytes, at: int) -> int:
        if data[at] == _COMMA:
            self._step = self._next_name
        elif data[at] == _CLOSE_OBJECT:
            self._end_object()
        else:
            raise MalformedResponse("a comma or the end of an object was expected")
        return at + 1

    def _end_object(self) -> None:
        self._out.append(b"}")
        self._first = False
        if self._in_element:
            self._in_element, self._allowed = False, TOP_LEVEL
            self._step = self._after_element
        else:
            self.complete = True
            self._step = self._end

    def _end(self, _data: bytes, _at: int) -> int:
        raise MalformedResponse("something follows the end of the answer")

    # --- The array of images -----------------------------------------------------------------------------------------

    def _first_element(self, data: bytes, at: int) -> int:
        if data[at] == _CLOSE_ARRAY:
            return self._end_array(at)
        return self._element(data, at)

    def _element(self, data: bytes, at: int) -> int:
        if data[at] != _OPEN_OBJECT:
            raise MalformedResponse("an image in 'data' is not an object")
        self._out.append(b"{" if self._first else b",{")
        self._in_element, self._counted, self._first, self._allowed = True, False, True, IN_AN_IMAGE
        self._step = self._first_name
        return at + 1

    def _after_element(self, data: bytes, at: int) -> int:
        if data[at] == _COMMA:
            self._step = self._element
            return at + 1
        if data[at] == _CLOSE_ARRAY:
            return self._end_array(at)
        raise MalformedResponse("a comma or the end of 'data' was expected")

    def _end_array(self, at: int) -> int:
        self._out.append(b"]")
        self._first = False
        self._step = self._after_value
        return at + 1

    # --- Values ------------------------------------------------------------------------------------------------------

    def _value(self, data: bytes, at: int) -> int:
        first = data[at]
        self._passing = self._name in self._allowed
        if self._name == _DATA and not self._in_element and first not in (_OPEN_ARRAY, _NULL):
            raise MalformedResponse("'data' is not an array")
        if first == _QUOTE:
            return self._begin_string(at)
        if first in _closing:
            return self._begin_nested(first, at)
        self._token = b""
        self._in_token = True
        self._step = self._read_literal
        return at

    def _begin_nested(self, first: int, at: int) -> int:
        if not self._in_element:
            if self._name == _DATA:
                self._write_name()
                self._out.append(b"[")
                self._first = True
                self._step = self._first_element
                return at + 1
            if self._name == _USAGE and first == _OPEN_OBJECT:
                self._captured, self._captured_bytes = [], 0
        self._closers.clear()
        self._in_token = True
        self._step = self._skip_nested
        return at

    def _write_name(self) -> None:
        if self._name == _DATA and not self._in_element:
            # Clients take the last of two, so that what they see would not be what is counted.
            if self._has_data:
                raise MalformedResponse("'data' is there twice")
            self._has_data = True
        self._out.append(self._allowed[self._name][self._first])
        self._first = False

    def _read_literal(self, data: bytes, at: int) -> int:
        match = _after_literal.search(data, at)
        end = match.start() if match else len(data)
        self._token += data[at:end]
        if len(self._token) > LITERAL_BYTES_LIMIT:
            raise MalformedResponse("a number is too long")
        if match is None:
            return end
        if not _literal.fullmatch(self._token):
            raise MalformedResponse("a value was expected")
        if self._passing:
            self._write_name()
            self._out.append(self._token)
        self._in_token = False
        self._step = self._after_value
        return end

    # --- Strings -----------------------------------------------------------------------------------------------------

    def _begin_string(self, at: int) -> int:
        self._string_bytes = 0
        self._is_escaped = False
        self._probe.begin()
        self._in_token = True
        self._step = self._read_string
        if self._passing and self._name == _URL:
            self._held = b""
            self._step = self._read_address
        elif self._passing:
            self._write_name()
            self._out.append(b'"')
        return at + 1

    def _read_address(self, data: bytes, at: int) -> int:
        """Hold an image's ``url`` back until it is known to be one; what is none is read on as what is dropped."""
        end = self._find_string_end(data, at)
        stop = len(data) if end < 0 else end
        self._held += self._mender.add(data[at:stop])
        is_address = read_lead(self._held)
        if is_address:
            self._write_name()
            self._out += b'"', self._held
            self._string_bytes = len(self._held)
        elif is_address is None and end < 0:
            return stop
        else:
            self._mender.end()
            self._passing = False
        self._step = self._read_string
        return stop

    def _read_string(self, data: bytes, at: int) -> int:
        end = self._find_string_end(data, at)
        stop = len(data) if end < 0 else end
        self._string_bytes += stop - at
        if self._passing and stop > at:
            piece = self._mender.add(data[at:stop])
            self._out.append(piece)
            self._probe.add(piece)
        if end < 0:
            return stop
        if self._passing:
            self._out.append(self._mender.end() + b'"')
            if self._string_bytes and self._name in IMAGE_PAYLOADS:
                self._count_image(self._probe.size() if self._name == _BASE64 else None)
        self._in_token = False
        self._step = self._after_value
        return end + 1

    def _count_image(self, size: Size | None) -> None:
        if not self._counted:
            if self.images == IMAGES_LIMIT:
                raise MalformedResponse("there are too many images in the answer")
            self._counted = True
            self.images += 1
            keep_size(self.sizes, size)

    # --- What is dropped, or kept aside ------------------------------------------------------------------------------

    def _skip_nested(self, data: bytes, at: int) -> int:
        begin, closers = at, self._closers
        while True:
            match = _whole_strings.match(data, at)
            at = match.end() if match else at
            if at == len(data):
                self._capture(data, begin, at)
                return at
            mark = data[at]
            at += 1
            if mark == _QUOTE:
                # A string that goes on in the next piece.
                self._capture(data, begin, at)
                self._is_escaped = False
                self._step = self._skip_string
                return at
            if mark in _closing:
                if len(closers) == DEPTH_LIMIT:
                    raise MalformedResponse("a value is nested too deeply")
                closers.append(_closing[mark])
            elif closers.pop() != mark:
                raise MalformedResponse("brackets do not match")
            elif not closers:
                self._capture(data, begin, at)
                self._end_nested()
                return at

    def _skip_string(self, data: bytes, at: int) -> int:
        end = self._find_string_end(data, at)
        stop = len(data) if end < 0 else end + 1
        self._capture(data, at, stop)
        if end >= 0:
            self._step = self._skip_nested
        return stop

    def _capture(self, data: bytes, at: int, end: int) -> None:
        if self._captured is None:
            return
        self._captured_bytes += end - at
        if self._captured_bytes > USAGE_BYTES_LIMIT:
            self._captured = None
        else:
            self._captured.append(data[at:end])

    def _end_nested(self) -> None:
        self._in_token = False
        self._step = self._after_value
        if self._captured is None:
            return
        captured, self._captured = b"".join(self._captured), None
        try:
            orjson.loads(captured)
        except orjson.JSONDecodeError:
            self.usage = None
        else:
            self.usage = captured


def _skip_blanks(data: bytes, at: int) -> int:
    match = _not_blank.search(data, at)
    return match.start() if match else len(data)


def _decode(name: bytes) -> bytes:
    try:
        decoded: str = orjson.loads(b'"%b"' % name)
    except orjson.JSONDecodeError:
        raise MalformedResponse("a name is not valid JSON") from None
    return decoded.encode()
