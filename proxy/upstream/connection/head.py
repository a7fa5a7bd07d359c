"""The head of an answer, and what it says of the body behind it (RFC 9112 section 6.3). No I/O.

Most heads are as they should be. One that is not is read all the same where it can mean one thing only, for an image
that was drawn should not be lost for how its head is written; its connection is then not used again.
"""

from __future__ import annotations

import re

from multidict import CIMultiDict

from proxy.upstream.connection.faults import NotHttp

IDLE_S = 30.0
"""How long a connection may be idle, where its server does not say less: shorter than what servers usually keep."""

HEADERS_MOST = 256
_EARLIER_S = 1.0
"""A server's own time ends so much earlier here, for the next request needs some of it to arrive."""

_NO_CONTENT = 204
_BODILESS = frozenset({_NO_CONTENT, 304})
_LENGTH_DIGITS = 18
_CHUNKED = b"chunked"
_LOOKED_AT = frozenset({b"connection", b"keep-alive", b"content-length", b"content-encoding", b"transfer-encoding"})
_LENGTHS = frozenset(map(len, _LOOKED_AT))

# Nothing here is tried twice (possessive quantifiers), so that no head takes longer than its length.
_status_line = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n\0]*+)?\r?\n")
_field = re.compile(rb"(?m)^([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([^\r\n\0]*+)\r\n")
_odd_field = re.compile(rb"(?m)^([!#$%&'*+\-.^_`|~0-9A-Za-z]++)[ \t]*+:[ \t]*+([^\r\n\0]*+)\r?\n")
_fold = re.compile(rb"\r?\n[ \t]++")
_idle = re.compile(rb"(?:^|[,; \t])timeout=([0-9]{1,6})\b")


class Head:
    """Of one answer. ``length`` is its body's, where it says one; ``may_go_on`` whether another answer may follow.

    ``idle_s`` is how long the connection may be idle then, in seconds.
    """

    __slots__ = ("_fields", "_headers", "encoding", "idle_s", "is_chunked", "length", "may_go_on", "status")

    def __init__(self, raw: bytes) -> None:
        """Read a head, from its first byte to its empty line. Raises NotHttp."""
        line = _status_line.match(raw)
        if line is None:
            raise NotHttp("it does not begin as HTTP/1.1")
        start = line.end()
        lines = raw.count(b"\n", start) - 1
        if lines > HEADERS_MOST:
            raise NotHttp("it has too many headers")
        fields = _field.findall(raw, start)
        is_odd = len(fields) != lines
        if is_odd:
            fields = _odd_fields(raw[start:])
        self.status = int(line[2])
        self.idle_s = IDLE_S
        self.is_chunked = False
        self.length: int | None = None
        self.encoding = ""
        self._fields: list[tuple[bytes, bytes]] = fields
        self._headers: CIMultiDict[str] | None = None
        told: dict[bytes, bytes] = {}
        for name, value in fields:
            if len(name) in _LENGTHS:
                lowered = name.lower()
                if lowered in _LOOKED_AT:
                    told[lowered] = told[lowered] + b"," + value if lowered in told else value
        self.may_go_on = not is_odd
        self._read(told, is_new=line[1] == b"1")

    @property
    def headers(self) -> CIMultiDict[str]:
        """All of them, by their names."""
        if self._headers is None:
            self._headers = CIMultiDict((_text(name), _text(value)) for name, value in self._fields)
        return self._headers

    @property
    def content_type(self) -> str:
        """The kind of the body, without its parameters."""
        told = self.headers.get("Content-Type", "").partition(";")[0].strip()
        return told.lower() or "application/octet-stream"

    @property
    def has_no_body(self) -> bool:
        """Whether its status or its length says that nothing follows."""
        return self.length == 0 or self.status in _BODILESS

    def _read(self, told: dict[bytes, bytes], *, is_new: bool) -> None:
        connection = told.get(b"connection", b"").lower()
        if b"close" in connection or not (is_new or b"keep-alive" in connection):
            self.may_go_on = False
        if b"keep-alive" in told and (found := _idle.search(told[b"keep-alive"].lower())):
            self.idle_s = min(IDLE_S, int(found[1]) - _EARLIER_S)
        if b"content-encoding" in told:
            self.encoding = _text(told[b"content-encoding"])
        length = told.get(b"content-length")
        if length is not None:
            self.length = self._read_length(length.strip())
        if b"transfer-encoding" in told:
            self._read_codings(told[b"transfer-encoding"].lower(), is_new=is_new)
        if self.status == _NO_CONTENT and (self.length or self.is_chunked):
            # Some send the body that they speak of, and it may come when the next request has been sent.
            self.may_go_on = False

    def _read_length(self, told: bytes) -> int:
        """A length that is repeated is one (RFC 9110 section 8.6)."""
        if b"," in told:
            self.may_go_on = False
            lengths = {each.strip() for each in told.split(b",")}
            told = lengths.pop() if len(lengths) == 1 else b""
        if not told.isdigit() or len(told) > _LENGTH_DIGITS:
            raise NotHttp("its lengths are none, or differ")
        return int(told)

    def _read_codings(self, told: bytes, *, is_new: bool) -> None:
        """Beside chunks a length is none; what is neither ends with the connection."""
        if told != _CHUNKED or self.length is not None or not is_new:
            self.may_go_on = False
        codings = [each.strip() for each in told.split(b",")]
        codings = [each for each in codings if each not in (b"", b"identity")]
        if not codings:
            return
        self.length = None
        self.is_chunked = codings[-1] == _CHUNKED
        if not self.is_chunked and _CHUNKED in codings:
            raise NotHttp("its chunks are not the last of its codings")


def _odd_fields(raw: bytes) -> list[tuple[bytes, bytes]]:
    """Headers with blanks before their colons, on several lines (RFC 9112 section 5.2), or without a CR (2.2)."""
    unfolded = _fold.sub(b" ", raw)
    fields = _odd_field.findall(unfolded)
    if len(fields) != unfolded.count(b"\n") - 1:
        raise NotHttp("it has a line that is no header")
    return fields


def _text(raw: bytes) -> str:
    return raw.strip().decode("utf-8", "surrogateescape")
