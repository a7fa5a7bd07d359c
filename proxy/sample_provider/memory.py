"""What the sample provider remembers between requests, each within limits, so that it can run for days.

The oldest goes first: the picture not fetched for longest, the request received longest ago.
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from typing import Any, Final, Generic, TypeVar

import orjson

from proxy.sample_provider.drawing import draw_picture

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")

_MAX_REQUESTS: Final = 1000
_MAX_REQUESTS_BYTES: Final = 64 * 1024 * 1024
_MAX_PICTURES: Final = 64
_MAX_PICTURES_BYTES: Final = 64 * 1024 * 1024


class RecentlyUsed(Generic[Key, Item]):
    """A cache of so many items, of so many bytes altogether; it forgets what was not used for longest."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        """Start empty."""
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._bytes = 0
        self._items: OrderedDict[Key, tuple[Item, int]] = OrderedDict()

    def __len__(self) -> int:
        """How many items are remembered."""
        return len(self._items)

    def get(self, key: Key) -> Item | None:
        """The item, which is now the most recently used; `None` when it is unknown or forgotten."""
        found = self._items.get(key)
        if found is None:
            return None
        self._items.move_to_end(key)
        return found[0]

    def put(self, key: Key, item: Item, size_bytes: int) -> None:
        """Remember an item; one that is larger than the whole cache is not kept."""
        self._bytes -= self._items.pop(key, (None, 0))[1]
        self._items[key] = item, size_bytes
        self._bytes += size_bytes
        while len(self._items) > self._max_items or self._bytes > self._max_bytes:
            self._bytes -= self._items.popitem(last=False)[1][1]


@dataclass(frozen=True, slots=True)
class ReceivedPart:
    """One part of a multipart body: what it was called, and what it held.

    ``value`` is a field's text; of a file, whose bytes are not kept, it is `None`.
    """

    name: str
    filename: str | None
    content_type: str | None
    size_bytes: int
    sha256: str
    value: str | None


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it came; it costs nothing to keep, and is only taken apart when somebody looks."""

    method: str
    path: str
    raw_headers: tuple[tuple[bytes, bytes], ...]
    raw_body: bytes
    parts: tuple[ReceivedPart, ...] = ()

    def described(self) -> dict[str, Any]:
        """The request for ``GET /requests``; ``body`` is `None` where it was not JSON, and ``parts`` is of uploads."""
        try:
            body = orjson.loads(self.raw_body)
        except orjson.JSONDecodeError:
            body = None
        headers = [[name.decode("latin-1").lower(), value.decode("latin-1")] for name, value in self.raw_headers]
        described: dict[str, Any] = {
            "method": self.method,
            "path": self.path,
            "headers": headers,
            "body": body,
            "raw_body": self.raw_body.decode(errors="replace"),
        }
        if self.parts:
            described["parts"] = [asdict(part) for part in self.parts]
        return described


class RequestLog:
    """The last 1000 requests, or fewer when their bodies are larger than 64 MiB together; oldest first."""

    def __init__(self) -> None:
        """Start empty."""
        self._requests: deque[ReceivedRequest] = deque()
        self._bytes = 0

    def add(self, request: ReceivedRequest) -> None:
        """Keep a request; the newest is kept however large it is."""
        self._requests.append(request)
        self._bytes += len(request.raw_body)
        while len(self._requests) > _MAX_REQUESTS or (self._bytes > _MAX_REQUESTS_BYTES and len(self._requests) > 1):
            self._bytes -= len(self._requests.popleft().raw_body)

    def clear(self) -> None:
        """Forget them all."""
        self._requests.clear()
        self._bytes = 0

    def described(self) -> list[dict[str, Any]]:
        """The requests for ``GET /requests``."""
        return [request.described() for request in self._requests]


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawn picture, as a file and as the base64 text of it."""

    file: bytes
    base64: bytes


PictureKey = tuple[str, int, int, str]


class Pictures:
    """Pictures by prompt, width and height in pixels, and format: drawn once, in a thread, and kept for a while."""

    def __init__(self) -> None:
        """Start empty."""
        self._kept: RecentlyUsed[PictureKey, Picture] = RecentlyUsed(_MAX_PICTURES, _MAX_PICTURES_BYTES)
        self._being_drawn: dict[PictureKey, asyncio.Task[Picture]] = {}

    async def get(self, prompt: str, width: int, height: int, picture_format: str = "png") -> Picture:
        """The picture of a prompt; those who ask for it at the same time wait for the same drawing."""
        key = (prompt, width, height, picture_format)
        picture = self._kept.get(key)
        if picture is not None:
            return picture
        drawing = self._being_drawn.get(key)
        if drawing is None:
            drawing = asyncio.create_task(self._draw(key))
            self._being_drawn[key] = drawing
        # A client that leaves must not take the picture from the others.
        return await asyncio.shield(drawing)

    async def close(self) -> None:
        """Wait for the drawings that nobody waits for any more."""
        await asyncio.gather(*self._being_drawn.values(), return_exceptions=True)

    async def _draw(self, key: PictureKey) -> Picture:
        try:
            picture = await asyncio.to_thread(_drawn, key)
        finally:
            del self._being_drawn[key]
        self._kept.put(key, picture, len(picture.file) + len(picture.base64))
        return picture


def _drawn(key: PictureKey) -> Picture:
    file = draw_picture(*key)
    # Decoders pass over what follows a picture; without padding, its base64 can be continued.
    file += bytes(-len(file) % 3)
    return Picture(file, base64.b64encode(file))
