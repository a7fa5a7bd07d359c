"""Images in a text: as Markdown's images and links, as HTML's ``src``, and as a text that is nothing but an address.

The text is read as JSON has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Protocol

from proxy.domain.answers.images.markup import BLANKS, EQUALS, Markup
from proxy.domain.parsing.image_addresses import IMAGE_BEGIN, Place, read_data_url

_PART_BYTES: Final = 8_192
_LINK_BYTES_LIMIT: Final = 4_096
"""Of an address; what is longer is none."""

_OPENING_BYTES_LIMIT: Final = 64
_LEAD_BYTES_LIMIT: Final = 256
"""Of what stands before an image in a text, up to the mark: longer than any that the patterns match."""

_MARK_BYTES_LIMIT: Final = 10
_ADDRESS = rb"data:image\\?/[a-z0-9.+-]{1,40}(?:;[^,;]{0,40}){0,2};base64,\Z"
_SRC = rb"src" + BLANKS + EQUALS + BLANKS
_QUOTE = rb"(?:\\\"|\\u0022|'|\\u0027)?"
_ANGLE = rb"(?:<|\\u003c)?"
_OPENING = rb"(?:\](?:\(|:)" + BLANKS + _ANGLE + rb"|" + _SRC + _QUOTE + rb")"
_lead = re.compile(_OPENING + _ADDRESS, re.IGNORECASE)
_bare_lead = re.compile(BLANKS + _ADDRESS, re.IGNORECASE)
# Some encoders escape what base64 holds beside letters and digits.
_naked = re.compile(BLANKS + rb"(?=" + IMAGE_BEGIN + rb")")
_base64 = re.compile(rb"(?:[A-Za-z0-9+/=_-]++|\\/|\\u00(?:2[bBfF]|3[dD]))*+")
_begun_escape = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?")
_blanks = re.compile(rb"(?:[ \t]|\\[nrt]){0,64}+")
_may_be_blank = re.compile(rb"(?:[ \t]|\\[nrt]){0,64}+\\?")
_SCHEME = rb"https?:\\?/\\?/"
_link_opening = re.compile(
    rb"(?:(?P<bracket>\]\()" + BLANKS + _ANGLE + rb"|" + _SRC + _QUOTE + rb")" + _SCHEME + rb"\Z", re.IGNORECASE
)
_bare_link = re.compile(BLANKS + _SCHEME, re.IGNORECASE)
_mark = re.compile(rb";base64,|" + _SCHEME, re.IGNORECASE)
_address = re.compile(rb"(?:[^\x00-\x20\"'<>)\\]++|\\/|\\u00(?:2[bB6]|3[dD]))*+")
_closing = re.compile(rb"[)> \t']|\\[\"nrt]|\\u00(?:3[eE]|22|27|29)")


@dataclass(slots=True)
class Link:
    """An image in a text that has begun: as far as it is held, and whether it is on its way."""

    place: Place
    held: bytearray = field(default_factory=bytearray)
    is_flowing: bool = False


class ImageSink(Protocol):
    """Who gets the images of a text while they arrive."""

    __slots__ = ()

    def begin_linked(self, place: Place) -> None:
        """An image, or the address of one, begins."""
        ...

    def linked(self, piece: bytes) -> None:
        """More of it, as JSON has it."""
        ...

    def end_linked(self, *, is_image: bool) -> None:
        """It ends, and its surroundings say whether it is one."""
        ...


class TextImages:
    """One text, in pieces of any size. An image counts when what ends its address has come.

    A linked image is one where Markdown or HTML show it, or where the text is nothing but its address.
    """

    __slots__ = (
        "_held",
        "_is_bare",
        "_is_definition",
        "_is_inside",
        "_is_linked",
        "_is_naked",
        "_is_start",
        "_is_wanted",
        "_link_bytes",
        "_markup",
        "_sink",
        "_taken",
    )

    _sink: ImageSink

    def __init__(self, *, is_wanted: bool = True) -> None:
        """Start before the text; find nothing where images are not wanted."""
        self._is_wanted = is_wanted
        self._start()

    def add(self, piece: bytes, sink: ImageSink) -> None:
        """More of the text; ``sink``, which may hold this reader, is known no longer than that. Raises what it does."""
        if not self._is_wanted:
            return
        self._sink = sink
        try:
            self._read(piece)
        finally:
            del self._sink

    def end(self, sink: ImageSink) -> None:
        """The text is whole; another one may begin. Raises what ``sink`` does."""
        if self._is_inside:
            is_closed = self._is_bare or self._is_definition
            sink.end_linked(is_image=is_closed and (not self._held or _blanks.fullmatch(self._held) is not None))
        self._start()

    def _read(self, piece: bytes) -> None:
        # In parts: what follows an image is copied for each of them.
        for start in range(0, len(piece), _PART_BYTES):
            part = piece[start : start + _PART_BYTES]
            while part:
                if not self._is_inside:
                    part = self._find_image(part)
                else:
                    part = self._read_link(part) if self._is_linked else self._read_image(part)

    def _start(self) -> None:
        self._is_inside = self._is_bare = self._is_linked = False
        # Whether it is base64 that no address leads to, or the end of a link reference definition (CommonMark 4.7).
        self._is_naked = self._is_definition = False
        # Whether what is held begins where the text does.
        self._is_start = True
        self._held = b""
        self._link_bytes = 0
        self._markup = Markup()
        # How much of what is held, and follows, the markup knows already.
        self._taken = 0

    def _find_image(self, piece: bytes) -> bytes:
        """Look for an image's lead; return what follows it, if it is there."""
        text, seen = self._held + piece, len(self._held)
        if self._is_start and (naked := _naked.match(text)) is not None:
            self._is_inside = self._is_bare = self._is_naked = True
            self._is_linked = self._is_definition = False
            self._held, self._taken, self._link_bytes = b"", 0, 0
            self._sink.begin_linked(Place(b"b64_json"))
            return text[naked.end() :]
        at = max(0, seen - _MARK_BYTES_LIMIT)
        while (found := _mark.search(text, at)) is not None:
            at = found.end()
            # One that was held whole has been looked at.
            if at > seen and self._begins_image(text, at, is_linked=not found[0].endswith(b",")):
                rest = found.start() if self._is_linked else at
                self._markup.take(text, self._taken, rest)
                self._is_inside, self._held, self._taken, self._link_bytes = True, b"", 0, 0
                return text[rest:]
        dropped = len(text) - _LEAD_BYTES_LIMIT
        if dropped > 0:
            self._is_start = False
            self._taken = self._markup.take(text, self._taken, dropped) - dropped
        self._held = text[-_LEAD_BYTES_LIMIT:]
        return b""

    def _begins_image(self, text: bytes, at: int, *, is_linked: bool) -> bool:
        """Whether the address that begins with a mark, which ends ``at``, is one of an image; tell the sink."""
        lead = text[max(0, at - _LEAD_BYTES_LIMIT) : at]
        is_first = self._is_start and at <= _LEAD_BYTES_LIMIT
        self._is_linked = is_linked
        self._is_bare = is_first and (_bare_link if is_linked else _bare_lead).fullmatch(lead) is not None
        self._is_naked = self._is_definition = False
        if is_linked:
            is_image = self._is_bare or self._is_shown(text, at)
        else:
            opening = _lead.search(lead)
            is_image = self._is_bare or opening is not None
            self._is_definition = opening is not None and opening[0].startswith(b"]:")
        if not is_image:
            return False
        self._sink.begin_linked(Place(b"url") if is_linked else _base64_place(lead))
        return True

    def _is_shown(self, text: bytes, at: int) -> bool:
        """Whether the address is shown as an image, and not as a link or as text."""
        opening = _link_opening.search(text[:at], max(0, at - _OPENING_BYTES_LIMIT))
        if opening is None:
            return False
        start = opening.start()
        self._taken = self._markup.take(text, self._taken, start)
        if self._taken > start:
            return False
        return self._markup.is_in_image_brackets if opening["bracket"] else self._markup.is_in_image_tag

    def _read_image(self, piece: bytes) -> bytes:
        """Take base64 to its end; return what follows, if that is there."""
        text = self._held + piece
        match = _base64.match(text)
        stop = match.end() if match else 0
        self._sink.linked(text[:stop])
        return self._read_end(text[stop:])

    def _read_link(self, piece: bytes) -> bytes:
        """Take an address to its end; return what follows, if that is there."""
        text = self._held + piece
        match = _address.match(text)
        stop = match.end() if match else 0
        self._link_bytes += stop
        self._sink.linked(text[:stop])
        if self._link_bytes > _LINK_BYTES_LIMIT:
            self._sink.end_linked(is_image=False)
            self._is_inside = self._is_start = False
            self._held = b""
            return text[stop:]
        return self._read_end(text[stop:])

    def _read_end(self, rest: bytes) -> bytes:
        is_alone = self._is_bare and (self._is_linked or self._is_naked)
        if not rest or _begun_escape.fullmatch(rest) or (is_alone and _may_be_blank.fullmatch(rest)):
            self._held = rest
            return b""
        self._sink.end_linked(is_image=not is_alone and _closing.match(rest) is not None)
        self._is_inside = self._is_start = False
        self._held = b""
        return rest


def _base64_place(lead: bytes) -> Place:
    address = read_data_url(lead[lead.lower().rfind(b"data:") :])
    return Place(b"b64_json", media_type=address[1] or b"" if address else b"")
