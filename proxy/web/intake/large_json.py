"""JSON bodies of more than 64 KiB: read after the key has been checked, and taken apart without holding the event loop.

Nearly all of such a body is images, as ``data:`` addresses or in base64 alone. They are cut out of it, looked at in
parts, and put back into what orjson makes of the rest, which is bounded in bytes and in values: orjson holds the
interpreter meanwhile.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from string import ascii_letters, digits
from typing import Any

from aiohttp import web

from proxy.domain.errors import InvalidRequest, PayloadTooLarge
from proxy.domain.requests.json_body import parse_json
from proxy.web.intake.body_memory import HeldBody
from proxy.web.intake.body_pieces import BodyPieces, Patience
from proxy.web.intake.request_body import accept_body, check_body, check_is_json

SMALL_BODY_BYTES = 65_536
"""Up to here, a body is read before the key is known to be good."""

TEXT_BYTES_LIMIT = 2**20
"""Of all that is no image."""

VALUES_LIMIT = 100_000
"""Commas, colons and brackets in it; some 5 ms of orjson."""

ADDRESS_BYTES_LEAST = 4_096
"""What is shorter is read with the rest."""

PART_BYTES = 2**20
LOOKS_AT_ONCE = 1_000
WINDOW_BYTES = 2**17
"""How much is looked through at once."""

_BEGIN_BYTES = 16
# An address, or the base64 of a PNG, a JPEG (whose / may be escaped), a WebP, a GIF, an AVIF or a HEIC.
_begin = re.compile(rb'"(?:data:|iVBORw0KGgo|\\?/9j\\?/|UklGR|R0lGOD|AAAA[A-Za-z0-9+/]GZ0eX)')
_IN_ADDRESSES = (ascii_letters + digits + "+/=-_:;,.%").encode()


@dataclass(frozen=True, slots=True)
class LargeJsonReader:
    """How a body of one request is read that is large, or may be."""

    limit_bytes: int
    patience: Patience
    held: HeldBody
    check_key: Callable[[], Awaitable[object]]
    """Raises what is wrong with the key."""

    async def read(self, request: web.Request, *, hashes: bool) -> tuple[bytes | dict[str, Any], bytes]:
        """The body, decoded where it is large; and with ``hashes`` what makes it the same as another one.

        Raises UnsupportedMediaType, PayloadTooLarge, RequestTimeout, BodiesUnavailable, or InvalidRequest.
        """
        check_is_json(request)
        check_body(request, self.limit_bytes)
        is_large = (request.content_length or 0) > SMALL_BODY_BYTES
        if is_large:
            await self.check_key()
            self.held.grow_to(request.content_length or 0)
        accept_body(request)
        pieces = BodyPieces(request, self.patience, self.limit_bytes)
        body, digest = bytearray(), sha256()
        while piece := await pieces.next():
            if not is_large and pieces.size > SMALL_BODY_BYTES:
                await self.check_key()
                is_large = True
            if is_large:
                self.held.grow_to(pieces.size)
            body += piece
            if hashes:
                digest.update(piece)
        if not is_large:
            return bytes(body), bytes(body)
        return await read_large_json(body), digest.digest()


async def read_large_json(body: bytearray) -> dict[str, Any]:
    """The object in ``body``. Raises InvalidRequest or PayloadTooLarge."""
    mark = secrets.token_hex(16)
    rest = bytearray()
    addresses: list[str] = []
    taken = at = looks = 0
    # Where nothing begins within the bytes that may be left over, they are too many already.
    while (begin := await _next_begin(body, at, taken + TEXT_BYTES_LIMIT + _BEGIN_BYTES)) >= 0:
        looks += 1
        if looks % LOOKS_AT_ONCE == 0:
            await asyncio.sleep(0)
        end = body.find(b'"', begin + 1)
        at = begin + 1 if end < 0 else end
        # A quotation mark behind a backslash is within a text, and what stands there is no address.
        is_short = end - begin < ADDRESS_BYTES_LEAST or body[begin - 1 : begin] == b"\\"
        address = None if is_short else await _address(body, begin + 1, end)
        if address is not None:
            rest += body[taken:begin] + f'"{mark}{len(addresses)}"'.encode()
            addresses.append(address)
            taken = end + 1
            at = taken
        _check_rest(len(rest) + at - taken)
    _check_rest(len(rest) + len(body) - taken)
    rest += body[taken:]
    if sum(rest.count(character) for character in b",:[{") > VALUES_LIMIT:
        raise InvalidRequest(f"The request body holds more than {VALUES_LIMIT:,} values; send fewer.")
    given = parse_json(bytes(rest))
    left = {f"{mark}{index}": address for index, address in enumerate(addresses)}
    _put_back(given, left)
    if left:
        raise InvalidRequest("A data: address in the request body is a name, or belongs to a name that is given twice.")
    return given


async def _next_begin(body: bytearray, at: int, limit: int) -> int:
    """Where an image may begin, from ``at`` on and before ``limit``; -1 where none does."""
    limit = min(limit, len(body))
    while at < limit:
        window = at + WINDOW_BYTES
        found = _begin.search(body, at, min(window + _BEGIN_BYTES, limit))
        if found is not None:
            return found.start()
        at = window
        await asyncio.sleep(0)
    return -1


async def _address(body: bytearray, begin: int, end: int) -> str | None:
    """The ``data:`` address there; None where it holds what none does."""
    texts: list[str] = []
    while begin < end:
        part = body[begin : min(begin + PART_BYTES, end)]
        if part.endswith(b"\\"):
            part += body[begin + len(part) : min(begin + len(part) + 1, end)]
        begin += len(part)
        if b"\\" in part:
            # Some encoders write \/ for /, and base64 is full of them.
            part = part.replace(b"\\/", b"/")
        if part.translate(None, _IN_ADDRESSES):
            return None
        texts.append(part.decode("ascii"))
        await asyncio.sleep(0)
    return "".join(texts)


def _check_rest(size: int) -> None:
    if size > TEXT_BYTES_LIMIT:
        raise PayloadTooLarge(
            f"The request's body has more than {TEXT_BYTES_LIMIT:,} bytes beside the images in its data: addresses."
        )


def _put_back(given: dict[str, Any], left: dict[str, str]) -> None:
    todo: list[Any] = [given]
    while todo:
        value = todo.pop()
        for place, inner in list(value.items() if type(value) is dict else enumerate(value)):
            if type(inner) is dict or type(inner) is list:
                todo.append(inner)
            elif type(inner) is str and inner in left:
                value[place] = left.pop(inner)
