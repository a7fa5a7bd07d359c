"""Two listeners on one socket, as two workers have them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.machine.limits import Board, SharedLimits
from proxy.machine.segment import Segment
from proxy.web.server.listener import Listener
from proxy.web.server.sockets.address import ListenAddress
from proxy.web.server.sockets.opening import Bound, SocketAccess, bind_all
from tests.web.server.test_listener import make_listener

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Clients = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


@pytest.fixture(params=["ip", "unix"])
async def bound(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bound]:
    """A socket that listens."""
    address = ListenAddress("127.0.0.1") if request.param == "ip" else ListenAddress.of(f"unix:{tmp_path}/s")
    made = await bind_all(address, SocketAccess(), reuse_port=False)
    yield made
    made.close()


@pytest.fixture
async def two(bound: Bound) -> AsyncIterator[tuple[Listener, Listener]]:
    """Both accept."""
    board = Board(Segment.create())
    listeners = make_listener(), make_listener()
    for column, listener in enumerate(listeners):
        await listener.share([each.dup() for each in bound.sockets], SharedLimits(board, column))
    yield listeners
    for listener in listeners:
        await listener.close()


async def connect(bound: Bound, count: int) -> Clients:
    if bound.file is not None:
        return [await asyncio.open_unix_connection(bound.file.path) for _ in range(count)]
    return [await asyncio.open_connection(*bound.sockets[0].getsockname()) for _ in range(count)]


async def answers(clients: Clients) -> list[bytes]:
    for _, writer in clients:
        writer.write(REQUEST)
    async with asyncio.timeout(10):
        return [(await reader.readuntil(b"served")).split(b"\r\n")[0] for reader, _ in clients]


async def close(clients: Clients) -> None:
    for _, writer in clients:
        writer.close()
        await writer.wait_closed()


async def test_connections_are_shared_evenly_although_all_come_at_once(
    bound: Bound, two: tuple[Listener, Listener]
) -> None:
    clients = await connect(bound, 40)
    assert await answers(clients) == [b"HTTP/1.1 200 OK"] * 40
    counts = [len(listener._opened) for listener in two]
    assert sum(counts) == 40
    assert abs(counts[0] - counts[1]) <= 2
    await close(clients)


async def test_what_one_leaves_the_other_takes(bound: Bound, two: tuple[Listener, Listener]) -> None:
    before = await connect(bound, 4)
    assert await answers(before) == [b"HTTP/1.1 200 OK"] * 4
    await two[0].close_door(to_workers=True)
    later = await connect(bound, 6)
    assert await answers(later) == [b"HTTP/1.1 200 OK"] * 6
    # Those that it has, it serves on.
    assert await answers(before) == [b"HTTP/1.1 200 OK"] * 4
    assert len(two[1]._opened) >= 6
    await close([*before, *later])


async def test_the_last_takes_what_waits_where_nobody_else_does(bound: Bound, two: tuple[Listener, Listener]) -> None:
    await two[0].close_door(to_workers=True)
    waiting = await connect(bound, 3)
    bound.close()
    await two[1].close_door()
    assert await answers(waiting) == [b"HTTP/1.1 200 OK"] * 3
    await close(waiting)
