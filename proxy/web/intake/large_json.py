"""JSON bodies of more than 64 KiB: read after the key has been checked, and taken apart without holding the event loop.

Nearly all of such a body is images in base64: alone, as ``data:`` addresses, or in the middle of a text, as a chat
sends back what it was answered. All that is long and in base64 is cut out of the body in parts, and put back into what
orjson makes of the rest, which is bounded in bytes and in values: orjson holds the interpreter meanwhile.
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
"""Of all that is no base64."""

VALUES_LIMIT = 100_000
"""Commas, colons and brackets in it; some 5 ms of orjson."""

RUN_BYTES_LEAST = 4_096
"""Of characters of base64 in a row; fewer may be read with the rest."""

PART_BYTES = 2**20
LOOKS_AT_ONCE = 1_000

WIDE_BYTES = 4
"""What each character of a text may take in memory where one of them is not ASCII."""

# Whatever has so many bytes has one such block in it, wherever it begins.
_BLOCK_BYTES = RUN_BYTES_LEAST // 2
# Some encoders write \/ for /, and base64 is full of them; some break it into lines (RFC 2045, section 6.8).
_ESCAPES = ((rb"\/", b"/"), (rb"\n", b"\n"), (rb"\r", b"\r"))
_ESCAPED = (b"/", b"n", b"r")
_LONGEST_ESCAPE = rb"\u0000"
# Nothing in it ends a string, and no value outside of strings is as long.
_IN_RUNS = (ascii_letters + digits + "+/=-_.%;").encode()
_run = re.compile(rb"(?:[A-Za-z0-9+/=_.%;-]++|\\[/nr])*+")
# An address as far as its data; and a PNG, a JPEG (whose / may be escaped), a WebP, a GIF, an AVIF or a HEIC.
_lead = re.compile(rb"data:(?:[!#-+\--\[\]-~]|\\/){1,100},\Z")
_image = re.compile(rb"iVBORw0KGgo|\\?/9j\\?/|UklGR|R0lGOD|AAAA[A-Za-z0-9+/]GZ0eX")
_varied = re.compile(rb"(?=.*?[a-z])(?=.*?[0-9]).*?[A-Z]")
_opens = re.compile(rb'[^\\]"')
_LEAD_BYTES = 128


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
        return await read_large_json(body, hold_wide=self._hold_wide), digest.digest()

    def _hold_wide(self, size: int) -> None:
        """Texts that take ``size`` bytes are held. Raises PayloadTooLarge or BodiesUnavailable."""
        if size > self.limit_bytes:
            raise PayloadTooLarge(
                f"Images in texts that are not all ASCII count {WIDE_BYTES} times, and may have {self.limit_bytes:,} "
                "bytes in all. Send them as parts of their own."
            )
        self.held.grow_to(size)


def _hold_all(_size: int) -> None: ...


async def read_large_json(body: bytearray, *, hold_wide: Callable[[int], object] = _hold_all) -> dict[str, Any]:
    """The object in ``body``.

    ``hold_wide`` is told how many bytes those texts take that are cut and not ASCII. Raises what it does,
    InvalidRequest or PayloadTooLarge.
    """
    # What stands outside of a string is no JSON with it, for it begins with a letter.
    mark = "x" + secrets.token_hex(16)
    rest = bytearray()
    runs: list[str] = []
    taken = at = looks = 0
    while at < len(body):
        looks += 1
        if looks % LOOKS_AT_ONCE == 0:
            await asyncio.sleep(0)
        begin = _begin_of_run(body, taken, at)
        if begin is None:
            at += _BLOCK_BYTES
            _check_rest(len(rest) + min(at, len(body)) - taken)
            continue
        rest += body[taken : begin.at] + f"{mark}{len(runs):08}".encode()
        run, at = await _read_run(body, begin)
        runs.append(run)
        taken = at
        _check_rest(len(rest))
    rest += body[taken:]
    if sum(rest.count(character) for character in b",:[{") > VALUES_LIMIT:
        raise InvalidRequest(f"The request body holds more than {VALUES_LIMIT:,} values; send fewer.")
    given = parse_json(bytes(rest))
    if await _put_back(given, mark, runs, hold_wide) != len(runs):
        raise InvalidRequest("A data: address in the request body is a name, or belongs to a name that is given twice.")
    return given


@dataclass(frozen=True, slots=True)
class _Begin:
    """Where a run begins, and where it has nothing but characters of base64 from."""

    at: int
    data_at: int


def _begin_of_run(body: bytearray, taken: int, at: int) -> _Begin | None:
    """Where the base64 begins that the block at ``at`` is in: not before ``taken``, nor within an escape.

    None where it is in none, or in what may as well be a word.
    """
    # A block may end before the second half of an escape.
    if _end_of_run(body, at, _BLOCK_BYTES) < at + _BLOCK_BYTES - 1:
        return None
    before = body[max(taken, at - _BLOCK_BYTES) : at]
    left = before.rstrip(_IN_RUNS)
    while left.endswith(b"\\") and not left.endswith(rb"\\") and before[len(left) : len(left) + 1] in _ESCAPED:
        left = left[:-1].rstrip(_IN_RUNS)
    begin = at - len(before) + len(left)
    lead = _lead.search(body, max(taken, begin - _LEAD_BYTES), begin)
    if lead is None and not _image.match(body, begin) and not _varied.match(body, begin, at + _BLOCK_BYTES):
        return None
    if body[begin - 1 : begin] == b"\\":
        begin += len(_LONGEST_ESCAPE)
        begin += body[begin - 1 : begin] == b"\\"
    elif lead is not None and b"\\" not in lead[0] and _opens.match(body, max(lead.start() - 2, 0), lead.start()):
        # An address that is all of a string is one run, which need not be copied.
        return _Begin(lead.start(), begin)
    return _Begin(begin, begin)


async def _read_run(body: bytearray, begin: _Begin) -> tuple[str, int]:
    """What stands there, and where it ends."""
    at = begin.data_at
    parts = [body[begin.at : at].decode("ascii")]
    while (end := _end_of_run(body, at, PART_BYTES)) > at:
        part = body[at:end]
        if b"\\" in part:
            for escape, character in _ESCAPES:
                part = part.replace(escape, character)
        parts.append(part.decode("ascii"))
        at = end
        await asyncio.sleep(0)
    return "".join(parts), at


def _end_of_run(body: bytearray, at: int, size: int) -> int:
    found = _run.match(body, at, at + size)
    return at if found is None else found.end()


def _check_rest(size: int) -> None:
    if size > TEXT_BYTES_LIMIT:
        raise PayloadTooLarge(
            f"The request's body has more than {TEXT_BYTES_LIMIT:,} bytes beside the images that it holds in base64."
        )


async def _put_back(given: dict[str, Any], mark: str, runs: list[str], hold_wide: Callable[[int], object]) -> int:
    """Put each of ``runs`` where its number stands behind ``mark``; how many there were."""
    numbers = re.compile(mark + "([0-9]{8})")
    todo: list[Any] = [given]
    found = wide_bytes = 0
    while todo:
        value = todo.pop()
        for place, inner in list(value.items() if type(value) is dict else enumerate(value)):
            if type(inner) is dict or type(inner) is list:
                todo.append(inner)
            elif type(inner) is str and mark in inner:
                pieces = numbers.split(inner)
                found += len(pieces) // 2
                pieces[1::2] = [runs[int(number)] for number in pieces[1::2]]
                if not inner.isascii():
                    wide_bytes += WIDE_BYTES * sum(map(len, pieces))
                    hold_wide(wide_bytes)
                pieces = [piece for piece in pieces if piece]
                value[place] = pieces[0] if len(pieces) == 1 else "".join(pieces)
                await asyncio.sleep(0)
    return found
