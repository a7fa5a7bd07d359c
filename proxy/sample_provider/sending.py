"""A body on its way to the client, as slowly or as badly as the behaviour asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

from aiohttp import web

from proxy.sample_provider.behaviour import Behaviour
from proxy.sample_provider.deviations import CUT, deviating_headers, encoded
from proxy.sample_provider.dialects.wire import cut

_PIECE_BYTES: Final = 128 * 1024
_JSON: Final = {"Content-Type": "application/json"}
_EVENT_STREAM: Final = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


async def send(
    request: web.Request,
    segments: Sequence[bytes],
    behaviour: Behaviour,
    *,
    status: int = 200,
    headers: Mapping[str, str] = _JSON,
) -> web.StreamResponse:
    """Answer with a body that ends, as far as the behaviour lets it; the segments are joined."""
    if behaviour.deviate:
        segments = list(chain.from_iterable(encoded([segments], behaviour.deviate)))
        headers = deviating_headers(headers, behaviour.deviate)
    # One that breaks off has promised more than comes.
    length = sum(map(len, segments)) + (CUT in behaviour.deviate)
    if length <= _PIECE_BYTES and not _is_paced(behaviour):
        return web.Response(body=b"".join(segments), status=status, headers=headers)
    response = web.StreamResponse(status=status, headers=headers)
    if not behaviour.chunk_bytes:
        response.content_length = length
    return await _stream(request, response, segments, behaviour)


async def send_endless(request: web.Request, segments: Iterable[bytes], behaviour: Behaviour) -> web.StreamResponse:
    """Answer with a body that has no end and no length, until the client has had enough."""
    return await _stream(request, web.StreamResponse(headers=_JSON), segments, behaviour)


async def send_events(
    request: web.Request, events: Iterable[Sequence[bytes]], behaviour: Behaviour
) -> web.StreamResponse:
    """Answer with server-sent events, each written as soon as it is made; an event is its segments, joined."""
    if not behaviour.deviate:
        return await _stream_groups(request, web.StreamResponse(headers=_EVENT_STREAM), events, behaviour)
    response = web.StreamResponse(headers=deviating_headers(_EVENT_STREAM, behaviour.deviate))
    return await _stream_groups(request, response, encoded(events, behaviour.deviate), behaviour)


async def send_endless_events(
    request: web.Request, segments: Iterable[bytes], behaviour: Behaviour
) -> web.StreamResponse:
    """Answer with an event that has no end, until the client has had enough."""
    return await _stream(request, web.StreamResponse(headers=_EVENT_STREAM), segments, behaviour)


async def without_content_type(_request: web.Request, response: web.StreamResponse) -> None:
    """Leave out a Content-Type that is empty, in place of which the library has one of its own."""
    if response.headers.get("Content-Type") == "":
        del response.headers["Content-Type"]


def drop(request: web.Request) -> web.Response:
    """Close the connection at once; the answer returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _is_paced(behaviour: Behaviour) -> bool:
    paces = behaviour.chunk_bytes or behaviour.first_byte_delay_ms or CUT in behaviour.deviate
    return bool(paces) or _limit_bytes(behaviour) is not None


def _limit_bytes(behaviour: Behaviour) -> int | None:
    return behaviour.stall_after if behaviour.truncate_after is None else behaviour.truncate_after


async def _stream(
    request: web.Request, response: web.StreamResponse, segments: Iterable[bytes], behaviour: Behaviour
) -> web.StreamResponse:
    return await _stream_groups(request, response, [segments], behaviour)


async def _stream_groups(
    request: web.Request, response: web.StreamResponse, groups: Iterable[Iterable[bytes]], behaviour: Behaviour
) -> web.StreamResponse:
    is_events = response.content_type == "text/event-stream"
    # A client that leaves in the middle is no fault of ours, and nothing for the log.
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await _write_groups(response, groups, behaviour)
    if behaviour.truncate_after is not None or CUT in behaviour.deviate:
        # Not an abort, which would throw away bytes that the kernel has not taken yet; a client sees no difference.
        if request.transport is not None:
            request.transport.close()
    elif behaviour.stall_after is not None or (is_events and behaviour.stall_after_events is not None):
        # The server cancels this when the client leaves (`handler_cancellation`).
        await asyncio.Event().wait()
    return response


async def _write_groups(response: web.StreamResponse, groups: Iterable[Iterable[bytes]], behaviour: Behaviour) -> None:
    if behaviour.first_byte_delay_ms:
        await asyncio.sleep(behaviour.first_byte_delay_ms / 1000)
    writer = _PieceWriter(response, behaviour)
    for index, group in enumerate(groups):
        if index and behaviour.event_delay_ms:
            await asyncio.sleep(behaviour.event_delay_ms / 1000)
        if not await writer.write(group):
            return


class _PieceWriter:
    """Writes pieces with pauses between them, up to the limit of the behaviour."""

    def __init__(self, response: web.StreamResponse, behaviour: Behaviour) -> None:
        self._response = response
        self._size_bytes = behaviour.chunk_bytes or _PIECE_BYTES
        self._pause_s = behaviour.chunk_delay_ms / 1000
        self._left = _limit_bytes(behaviour)
        self._begun = False

    async def write(self, segments: Iterable[bytes]) -> bool:
        """Write the segments, joined and cut; false once the limit is reached."""
        for whole in cut(segments, self._size_bytes):
            piece = whole if self._left is None else whole[: self._left]
            if not piece:
                return False
            if self._left is not None:
                self._left -= len(piece)
            if self._begun and self._pause_s:
                await asyncio.sleep(self._pause_s)
            self._begun = True
            await self._response.write(piece)
        return True
