"""A connection by itself: how long an answer may stay unread, and what an end of the client's side means."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from proxy.telemetry.logs import RequestLog
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import request_ids
from proxy.web.intake.request_body import read_json_body
from proxy.web.middleware.errors import errors
from proxy.web.middleware.observe import Refusals, number
from proxy.web.server.connection import Connection, ConnectionLimits
from proxy.web.server.lifecycle import Lifecycle
from proxy.web.server.listener import Listener
from proxy.web.server.open_connections import UNREAD, OpenConnections

WRITE_TIMEOUT_S = 0.4
PATIENT_S = 1.5
"""Longer than a busy machine keeps both ends, which are one process here, from their turn."""
LARGE = b"x" * 16 * 2**20


class Bench:
    """A listener, and what its application saw."""

    def __init__(self, port: int, metrics: Metrics) -> None:
        self.port = port
        self.metrics = metrics
        self.bodies: list[bytes] = []
        self.ended: list[str] = []

    def closed(self, reason: str) -> int:
        """How many connections it has closed for that."""
        for line in self.metrics.render().decode().splitlines():
            if line.startswith(f'lightmeter_connections_closed_total{{listener="test",reason="{reason}"}}'):
                return int(float(line.rpartition(" ")[2]))
        return 0

    async def connect(self, receive_bytes: int = 4_096) -> tuple[asyncio.AbstractEventLoop, socket.socket]:
        """A client with a small receive buffer, which reads when it is written to."""
        loop = asyncio.get_running_loop()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", self.port))
        return loop, client


@pytest.fixture
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    metrics = Metrics()

    async def large(_request: web.Request) -> web.Response:
        return web.Response(body=LARGE)

    async def echo(request: web.Request) -> web.Response:
        made.bodies.append(await read_json_body(request, limit_bytes=2**20, timeout_s=5))
        return web.Response(body=made.bodies[-1])

    async def late(request: web.Request) -> web.Response:
        loop = asyncio.get_running_loop()
        ends = loop.time() + float(request.query["s"])
        while loop.time() < ends:
            if request.transport is None:
                made.ended.append("left")
                break
            await asyncio.sleep(0.01)
        else:
            made.ended.append("answered")
        return web.Response(text="late")

    app = web.Application(middlewares=[number(request_ids()), errors(Lifecycle())])
    app.router.add_get("/large", large)
    app.router.add_post("/echo", echo)
    app.router.add_get("/late", late)
    refusals = Refusals("test", metrics, RequestLog(), request_ids())
    opened = OpenConnections("test", 100, metrics, refusals.next_id)
    listener = Listener(app, opened, ConnectionLimits(75, getattr(request, "param", WRITE_TIMEOUT_S), 32_768), refusals)
    url = await listener.open("127.0.0.1", 0, reuse_port=False)
    made = Bench(int(url.rpartition(":")[2]), metrics)
    yield made
    await listener.close()


async def until(condition: Callable[[], Any], timeout_s: float = 10) -> None:
    ends = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < ends
        await asyncio.sleep(0.01)


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: lightmeter", *headers, "", ""]).encode()


async def read_all(loop: asyncio.AbstractEventLoop, client: socket.socket) -> bytes:
    received = b""
    while part := await loop.sock_recv(client, 2**20):
        received += part
    return received


# --- Answers that nobody reads ----------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_an_answer_that_nobody_reads_leaves_neither_task_nor_memory(bench: Bench) -> None:
    loop, client = await bench.connect()
    with client:
        await loop.sock_sendall(client, get("/large"))
        await until(lambda: bench.closed(UNREAD) == 1)
        await until(lambda: not [task for task in asyncio.all_tasks() if "RequestHandler" in repr(task.get_coro())])
        gc.collect()
        assert not [one for one in gc.get_objects() if isinstance(one, Connection)]


async def test_the_end_of_an_answer_has_a_deadline_where_the_connection_closes_behind_it(bench: Bench) -> None:
    loop, client = await bench.connect()
    with client:
        await loop.sock_sendall(client, get("/large", "Connection: close"))
        received = 0
        # All but what is less than a paused writer waits for.
        while received < len(LARGE) - 5 * 2**20:
            received += len(await loop.sock_recv(client, 65_536))
        await until(lambda: bench.closed(UNREAD) == 1)
        with contextlib.suppress(ConnectionError):
            while part := await loop.sock_recv(client, 65_536):
                received += len(part)
        assert received < len(LARGE)


@pytest.mark.slow
@pytest.mark.parametrize("bench", [PATIENT_S], indirect=True, ids=[""])
async def test_a_slow_client_that_reads_on_gets_all_of_it(bench: Bench) -> None:
    loop, client = await bench.connect(2**16)
    with client:
        began = loop.time()
        await loop.sock_sendall(client, get("/large", "Connection: close"))
        received = 0
        while part := await loop.sock_recv(client, 2**17):
            received += len(part)
            await asyncio.sleep(0.03)
        assert received > len(LARGE)
        assert loop.time() - began > 2 * PATIENT_S
        assert bench.closed(UNREAD) == 0


# --- A client that has sent its last ----------------------------------------------------------------------------------


async def test_a_client_that_closes_only_its_side_gets_its_answer_and_then_the_end(bench: Bench) -> None:
    loop, client = await bench.connect()
    with client:
        await loop.sock_sendall(client, get("/late?s=0.3"))
        client.shutdown(socket.SHUT_WR)
        received = await asyncio.wait_for(read_all(loop, client), 5)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in received
    assert received.endswith(b"late")
    assert bench.ended == ["answered"]


async def test_of_several_requests_before_that_each_is_answered(bench: Bench) -> None:
    loop, client = await bench.connect()
    with client:
        await loop.sock_sendall(client, get("/late?s=0.1") * 3)
        await asyncio.sleep(0.05)
        client.shutdown(socket.SHUT_WR)
        received = await asyncio.wait_for(read_all(loop, client), 5)
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert received.count(b"HTTP/1.1 100 Continue\r\n") == 1


async def test_a_client_that_has_left_is_told_from_one_that_listens(bench: Bench) -> None:
    loop, client = await bench.connect()
    with client:
        await loop.sock_sendall(client, get("/late?s=60"))
    await until(lambda: bench.ended == ["left"], timeout_s=30)


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /echo HTTP/1.1\r\nHost: lightmeter\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{",
        b"GET /late?s=0.3 HTTP/1.0\r\n\r\n",
        b"GET /late?s=0.3",
    ],
    ids=["in a body", "HTTP/1.0", "in a head"],
)
async def test_where_nothing_can_tell_it_has_left(bench: Bench, sent: bytes) -> None:
    loop, client = await bench.connect()
    with client:
        await loop.sock_sendall(client, sent)
        await asyncio.sleep(0.1)
        client.shutdown(socket.SHUT_WR)
        assert await asyncio.wait_for(read_all(loop, client), 5) == b""


# --- Framing ----------------------------------------------------------------------------------------------------------


def chunked(body: bytes, size: int, extension: bytes = b"") -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n\r\n"


ECHO = b"\r\n".join(
    (
        b"POST /echo HTTP/1.1",
        b"Host: h",
        b"Content-Type: application/json",
        b"Connection: close",
        b"Transfer-Encoding: chunked",
        b"",
        b"",
    )
)


@pytest.mark.parametrize(
    ("size", "length", "extension", "good"),
    [
        (1, 1_000, b"", True),
        (1, 50_000, b"", False),
        (16, 10_000, b"", True),
        (16, 300_000, b"", False),
        (64, 900_000, b"", True),
        (128, 900_000, b";a=b", True),
        (64, 900_000, b";a=" + b"b" * 30, False),
        (65_536, 1_000_000, b"", True),
        (65_536, 1_000_000, b";a=" + b"b" * 100, True),
    ],
)
@pytest.mark.parametrize("segment_bytes", [500, 1_460, 65_536, 10**7])
async def test_framing_may_not_outweigh_its_data(
    bench: Bench, size: int, length: int, extension: bytes, good: bool, segment_bytes: int
) -> None:
    body = bytes(range(32, 127)) * (length // 95 + 1)
    sent = ECHO + chunked(body[:length], size, extension)
    loop, client = await bench.connect(2**20)
    with client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(sent), segment_bytes):
            try:
                await loop.sock_sendall(client, sent[at : at + segment_bytes])
            except ConnectionError:
                assert not good
                break
            await asyncio.sleep(0)
        try:
            received = await asyncio.wait_for(read_all(loop, client), 10)
        except ConnectionResetError:
            assert not good
            return
    assert received.startswith(b"HTTP/1.1 200" if good else b"HTTP/1.1 400")
    assert bench.bodies == ([body[:length]] if good else [])


# --- What stays of a connection ---------------------------------------------------------------------------------------

LIVES = {
    "a good one": ECHO + chunked(b"{}", 2),
    "bad chunks": ECHO + b"1\r\na\r\nZ\r\n",
    "mostly framing": ECHO + b"1\r\na\r\n" * 20_000,
    "no HTTP": b"NONSENSE\r\n\r\n",
    "a good one and no HTTP": get("/late?s=0") + b"NONSENSE\r\n\r\n",
    "a large body that nobody reads": get("/late?s=0", "Content-Length: 1000000") + b"x" * 100_000,
    "chunks that nobody reads": get("/late?s=0", "Transfer-Encoding: chunked") + b"1\r\na\r\n" * 100,
    "an upgrade": get("/late?s=0", "Connection: Upgrade", "Upgrade: websocket") + b"x" * 1_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("sent", LIVES.values(), ids=LIVES)
@pytest.mark.parametrize("pieces", [1, 2])
async def test_nothing_of_a_connection_waits_for_the_garbage_collector(
    bench: Bench, caplog: pytest.LogCaptureFixture, sent: bytes, pieces: int
) -> None:
    # As in a gateway; what is logged here is kept, with all that its frames hold.
    caplog.set_level(logging.CRITICAL, logger="aiohttp.server")
    with collector_at_rest():
        for _ in range(5):
            loop, client = await bench.connect()
            with client:
                half = sent.find(b"\r\n\r\n") + 4 + 6
                for piece in (sent[:half], sent[half:]) if pieces == 2 else (sent,):
                    with contextlib.suppress(ConnectionError):
                        await loop.sock_sendall(client, piece)
                    await asyncio.sleep(0.02)
                assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 ")
        await until(lambda: not alive())


@pytest.mark.slow
async def test_nothing_of_a_body_that_its_client_has_left_waits_for_it_either(bench: Bench) -> None:
    with collector_at_rest():
        for sent in (
            ECHO + b"5\r\nhello\r\n",
            ECHO.replace(b"Transfer-Encoding: chunked", b"Content-Length: 9") + b"hello",
        ):
            loop, client = await bench.connect()
            with client:
                await loop.sock_sendall(client, sent)
                await asyncio.sleep(0.1)
        await until(lambda: not alive())


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """Nothing is collected, and what there was before is not looked at again: it is a hundred times as much."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def alive() -> list[object]:
    """Every connection and every body since then that is not garbage, or not found to be."""
    return [one for one in gc.get_objects() if isinstance(one, Connection | StreamReader) and one is not EMPTY_PAYLOAD]
