"""Counts the images of an answer, of which the same one again, as streams repeat it, counts once.

Images are compared by their length, their first and their last bytes, as JSON has them: none of several megabytes is
hashed.
"""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from proxy.domain.answers.images.in_text import ImageSink
from proxy.domain.catalog import IMAGES_LIMIT
from proxy.domain.parsing.image_addresses import PREFIX_BYTES_LIMIT, Place, read_data_url
from proxy.domain.parsing.image_header import Size, SizeProbe, keep_size, read_size
from proxy.domain.parsing.json_tokens import MalformedResponse

_TAIL_BYTES: Final = 256
_HEAD_BYTES: Final = 256
"""More than what images of one size and kind have in common."""


class Fingerprint:
    """One image after the other, of whose bytes only the length, the beginning and the end are kept."""

    __slots__ = ("_length", "_probe", "_tail")

    def __init__(self) -> None:
        """No image yet."""
        self._probe = SizeProbe()
        self.begin()

    def begin(self) -> None:
        """Another image begins."""
        self._length = 0
        self._tail = b""
        self._probe.begin()

    def add(self, piece: bytes) -> None:
        """More of it."""
        self._length += len(piece)
        self._probe.add(piece)
        if len(piece) >= _TAIL_BYTES:
            self._tail = piece[-_TAIL_BYTES:]
        else:
            self._tail = (self._tail + piece)[-_TAIL_BYTES:]

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it has come."""
        return not self._length

    @property
    def key(self) -> tuple[int, bytes, bytes]:
        """What two that are the same have in common."""
        return self._length, self._probe.prefix[:_HEAD_BYTES], self._tail

    def size(self) -> Size | None:
        """Its width and height in pixels, where they are known."""
        return read_size(self._probe.prefix)


class SeenImages:
    """Counts images that differ."""

    __slots__ = ("_seen", "count", "sizes")

    def __init__(self) -> None:
        """None yet."""
        self.count = 0
        self.sizes: list[Size | None] = []
        self._seen: set[tuple[int, bytes, bytes]] = set()

    def __contains__(self, image: Fingerprint) -> bool:
        return image.key in self._seen

    def add(self, image: Fingerprint) -> None:
        """One more, unless it was there before. Raises MalformedResponse where there are too many."""
        key = image.key
        if key in self._seen or image.is_empty:
            return
        if self.count == IMAGES_LIMIT:
            raise MalformedResponse("there are too many images in the answer")
        self._seen.add(key)
        self.count += 1
        keep_size(self.sizes, image.size())


class PayloadImages:
    """Strings that are images; a ``data:`` address is what it holds."""

    __slots__ = ("_begin", "_image", "_seen")

    def __init__(self, seen: SeenImages) -> None:
        """Count into ``seen``."""
        self._seen = seen
        self._image = Fingerprint()
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
        self._seen.add(self._image)
        self._image.begin()

    def _skip_lead(self) -> None:
        begin, self._begin = self._begin or b"", None
        match = read_data_url(begin)
        self._image.add(begin[match.end() :] if match else begin)


class CountedImages(ImageSink):
    """Counts the images that are found in a text."""

    __slots__ = ("_image", "_seen")

    def __init__(self, seen: SeenImages) -> None:
        """Count into ``seen``."""
        self._seen = seen
        self._image = Fingerprint()

    @override
    def begin_linked(self, place: Place) -> None:
        self._image.begin()

    @override
    def linked(self, piece: bytes) -> None:
        self._image.add(piece)

    @override
    def end_linked(self, *, is_image: bool) -> None:
        if is_image:
            self._seen.add(self._image)
