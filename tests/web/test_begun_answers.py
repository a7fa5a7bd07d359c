"""An error after an answer has begun cuts the connection: a second status line would be read as a part of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from proxy.domain.errors import InvalidRequest
from proxy.telemetry.logs import RequestLog
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import request_ids
from proxy.web.middleware.errors import errors
from proxy.web.middleware.observe import Refusals, number
from proxy.web.server.connection import ConnectionLimits
from proxy.web.server.lifecycle import Lifecycle
from proxy.web.server.listener import Listener
from proxy.web.server.open_connections import OpenConnections

# Made anew for each: an error holds the frames that it went through.
FAILURES: dict[str, Callable[[], Exception]] = {
    "bug": lambda: KeyError("a bug"),
    "refusal": lambda: InvalidRequest("no"),
    "http": web.HTTPBadRequest,
}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def begin_and_fail(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"the first part")
        failure = FAILURES[request.query["by"]]()
        raise failure

    async def fail(request: web.Request) -> web.StreamResponse:
        failure = FAILURES[request.query["by"]]()
        raise failure

    app = web.Application(middlewares=[number(request_ids()), errors(Lifecycle())])
    app.router.add_get("/begun", begin_and_fail)
    app.router.add_get("/not", fail)
    metrics = Metrics()
    refusals = Refusals("test", metrics, RequestLog(), request_ids())
    opened = OpenConnections("test", 100, metrics, refusals.next_id)
    listener = Listener(app, opened, ConnectionLimits(75, 5, 32_768), refusals)
    url = await listener.open("127.0.0.1", 0, reuse_port=False)
    yield int(url.rpartition(":")[2])
    await listener.close()


async def answer(port: int, path: str) -> bytes:
    """All that comes until the connection ends, however it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    received = b""
    try:
        async with asyncio.timeout(5):
            while piece := await reader.read(65_536):
                received += piece
    except ConnectionError:
        pass
    finally:
        writer.close()
    return received


@pytest.mark.parametrize("by", FAILURES)
async def test_there_is_one_status_line(port: int, by: str) -> None:
    received = await answer(port, f"/begun?by={by}")
    assert received.count(b"HTTP/1.1 ") <= 1
    assert b"error" not in received
    # Nothing says that the answer is whole: its last chunk has not come.
    assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("by", FAILURES)
async def test_one_that_has_not_begun_is_the_error(port: int, by: str) -> None:
    received = await answer(port, f"/not?by={by}")
    assert received.count(b"HTTP/1.1 ") == 1
    assert b'{"error":' in received
