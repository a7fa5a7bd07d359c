"""The images of a chat's answer, of which the same one again, as streams repeat it, counts once.

Their strings are read as JSON has them. ``PayloadImages`` reads those that are an image and nothing else.
``TextImages`` finds them in text: as Markdown's images and links, as HTML's ``src``, and as a text that is nothing but
an address.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from proxy.domain.catalog import IMAGES_LIMIT
from proxy.domain.image_size import Size, SizeProbe, keep_size
from proxy.domain.response_scanner import MalformedResponse
from proxy.domain.translation import PREFIX_BYTES_LIMIT, read_data_url

_MARK: Final = b";base64,"
_LEAD_BYTES_LIMIT: Final = 256
"""Of what stands before an image in a text, up to the mark: longer than any that the patterns match."""

_BLANKS = rb"(?:[ \t]|\\[nrt]){0,4}"
_ADDRESS = rb"data:image\\?/[a-z0-9.+-]{1,40}(?:;[^,;]{0,40}){0,2};base64,\Z"
_OPENING = rb"(?:\]\(" + _BLANKS + rb"(?:<|\\u003c)?|\]:" + _BLANKS + rb"<?|src=(?:\\\"|\\u0022|'|\\u0027)?)"
_lead = re.compile(_OPENING + _ADDRESS, re.IGNORECASE)
_bare_lead = re.compile(_BLANKS + _ADDRESS, re.IGNORECASE)
# Some encoders escape what base64 holds beside letters and digits.
_base64 = re.compile(rb"(?:[A-Za-z0-9+/=_-]++|\\/|\\u00(?:2[bBfF]|3[dD]))*+")
_begun_escape = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?")
_closing = re.compile(rb"[)> \t']|\\[\"nrt]|\\u00(?:3[eE]|22|27|29)")


class SeenImages:
    """Counts images that differ, by a digest of what they hold."""

    __slots__ = ("_seen", "count", "sizes")

    def __init__(self) -> None:
        """None yet."""
        self.count = 0
        self.sizes: list[Size | None] = []
        self._seen: set[bytes] = set()

    def add(self, digest: bytes, size: Size | None) -> None:
        """One more. Raises MalformedResponse where there are too many."""
        if digest in self._seen:
            return
        if self.count == IMAGES_LIMIT:
            raise MalformedResponse("there are too many images in the answer")
        self._seen.add(digest)
        self.count += 1
        keep_size(self.sizes, size)


class _Image:
    """One image after the other, of whose bytes only the digest and the size are kept."""

    __slots__ = ("_digest", "_probe", "_seen", "is_empty")

    def __init__(self, seen: SeenImages) -> None:
        self._seen = seen
        self._probe = SizeProbe()
        self.begin()

    def begin(self) -> None:
        self.is_empty = True
        self._digest = blake2b(digest_size=16)
        self._probe.begin()

    def add(self, piece: bytes) -> None:
        if piece:
            self.is_empty = False
            self._digest.update(piece)
            self._probe.add(piece)

    def end(self) -> None:
        if not self.is_empty:
            self._seen.add(self._digest.digest(), self._probe.size())


class PayloadImages:
    """Strings that are images; a ``data:`` address is what it holds."""

    __slots__ = ("_begin", "_image")

    def __init__(self, seen: SeenImages) -> None:
        """Count into ``seen``."""
        self._image = _Image(seen)
        self._begin: bytes | None = b""

    def begin(self) -> None:
        """An image's string begins."""
        self._begin = b""
        self._image.begin()

    def add(self, piece: bytes) -> None:
        """More of it."""
        if self._begin is None:
            self._image.add(piece)
            return
        self._begin += piece
        if len(self._begin) >= PREFIX_BYTES_LIMIT:
            self._skip_lead()

    def end(self) -> None:
        """It is whole. Raises MalformedResponse where there are too many."""
        if self._begin is not None:
            self._skip_lead()
        self._image.end()

    def _skip_lead(self) -> None:
        begin, self._begin = self._begin or b"", None
        match = read_data_url(begin)
        self._image.add(begin[match.end() :] if match else begin)


class TextImages:
    """One text, in pieces of any size. An image counts when what ends its address has come."""

    __slots__ = ("_held", "_image", "_is_bare", "_is_inside", "_is_start")

    def __init__(self, seen: SeenImages) -> None:
        """Count into ``seen``."""
        self._image = _Image(seen)
        self._start()

    def add(self, piece: bytes) -> None:
        """More of the text. Raises MalformedResponse where there are too many images."""
        while piece:
            piece = self._read_image(piece) if self._is_inside else self._find_image(piece)

    def end(self) -> None:
        """The text is whole; another one may begin. Raises MalformedResponse where there are too many images."""
        if self._is_inside and self._is_bare and not self._held:
            self._image.end()
        self._start()

    def _start(self) -> None:
        self._is_inside = self._is_bare = False
        # Whether what is held begins where the text does.
        self._is_start = True
        self._held = b""

    def _find_image(self, piece: bytes) -> bytes:
        """Look for an image's lead; return what follows it, if it is there."""
        text, at = self._held + piece, 0
        while (at := text.find(_MARK, at) + len(_MARK)) >= len(_MARK):
            lead = text[max(0, at - _LEAD_BYTES_LIMIT) : at]
            self._is_bare = self._is_start and at <= _LEAD_BYTES_LIMIT and _bare_lead.fullmatch(lead) is not None
            if self._is_bare or _lead.search(lead):
                self._is_inside, self._held = True, b""
                self._image.begin()
                return text[at:]
        self._is_start = self._is_start and len(text) < _LEAD_BYTES_LIMIT
        self._held = text[-_LEAD_BYTES_LIMIT:]
        return b""

    def _read_image(self, piece: bytes) -> bytes:
        """Take base64 to its end; return what follows, if that is there."""
        text = self._held + piece
        match = _base64.match(text)
        stop = match.end() if match else 0
        self._image.add(text[:stop])
        rest = text[stop:]
        if not rest or _begun_escape.fullmatch(rest):
            self._held = rest
            return b""
        if _closing.match(rest):
            self._image.end()
        self._is_inside = self._is_start = False
        self._held = b""
        return rest
