"""A body on its way to the client, as slowly or as badly as the behaviour asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from aiohttp import web

from proxy.sample_provider.behaviour import Behaviour
from proxy.sample_provider.wire import cut

_PIECE_BYTES: Final = 128 * 1024
_JSON: Final = {"Content-Type": "application/json"}


async def send(
    request: web.Request,
    segments: Sequence[bytes],
    behaviour: Behaviour,
    *,
    status: int = 200,
    headers: Mapping[str, str] = _JSON,
) -> web.StreamResponse:
    """Answer with a body that ends, as far as the behaviour lets it; the segments are joined."""
    length = sum(map(len, segments))
    if length <= _PIECE_BYTES and not _is_paced(behaviour):
        return web.Response(body=b"".join(segments), status=status, headers=headers)
    response = web.StreamResponse(status=status, headers=headers)
    if not behaviour.chunk_bytes:
        response.content_length = length
    return await _stream(request, response, segments, behaviour)


async def send_endless(request: web.Request, segments: Iterable[bytes], behaviour: Behaviour) -> web.StreamResponse:
    """Answer with a body that has no end and no length, until the client has had enough."""
    return await _stream(request, web.StreamResponse(headers=_JSON), segments, behaviour)


def drop(request: web.Request) -> web.Response:
    """Close the connection at once; the answer returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _is_paced(behaviour: Behaviour) -> bool:
    return bool(behaviour.chunk_bytes or behaviour.first_byte_delay_ms) or _limit_bytes(behaviour) is not None


def _limit_bytes(behaviour: Behaviour) -> int | None:
    return behaviour.stall_after if behaviour.truncate_after is None else behaviour.truncate_after


async def _stream(
    request: web.Request, response: web.StreamResponse, segments: Iterable[bytes], behaviour: Behaviour
) -> web.StreamResponse:
    # A client that leaves in the middle is no fault of ours, and nothing for the log.
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await _write_pieces(response, segments, behaviour)
    if behaviour.truncate_after is not None:
        # Not an abort, which would throw away bytes that the kernel has not taken yet; a client sees no difference.
        if request.transport is not None:
            request.transport.close()
    elif behaviour.stall_after is not None:
        # The server cancels this when the client leaves (`handler_cancellation`).
        await asyncio.Event().wait()
    return response


async def _write_pieces(response: web.StreamResponse, segments: Iterable[bytes], behaviour: Behaviour) -> None:
    if behaviour.first_byte_delay_ms:
        await asyncio.sleep(behaviour.first_byte_delay_ms / 1000)
    left = _limit_bytes(behaviour)
    for index, whole in enumerate(cut(segments, behaviour.chunk_bytes or _PIECE_BYTES)):
        piece = whole if left is None else whole[:left]
        if not piece:
            return
        if left is not None:
            left -= len(piece)
        if index and behaviour.chunk_delay_ms:
            await asyncio.sleep(behaviour.chunk_delay_ms / 1000)
        await response.write(piece)
