from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import uvloop
from aiohttp import web

from proxy.telemetry.logs import RequestLog
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import request_ids
from proxy.web.middleware.observe import Refusals
from proxy.web.server import listener as listener_module
from proxy.web.server.connection import ConnectionLimits
from proxy.web.server.listener import Listener
from proxy.web.server.open_connections import OpenConnections
from proxy.web.server.sockets.address import ListenAddress
from proxy.web.server.sockets.opening import SocketAccess

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def make_listener() -> Listener:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="served")

    app = web.Application()
    app.router.add_get("/", answer)
    metrics = Metrics()
    refusals = Refusals("test", metrics, RequestLog(), request_ids())
    opened = OpenConnections("test", 1_000, metrics, refusals.next_id)
    return Listener(app, opened, ConnectionLimits(75, 5, 32_768), refusals)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = make_listener()
    yield made
    await made.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@contextlib.contextmanager
def connected(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Clients that have connected and sent their request, before the event loop has looked at any of them."""
    clients = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(count)]
    try:
        for client in clients:
            client.sendall(REQUEST)
            client.setblocking(False)
        yield clients
    finally:
        for client in clients:
            client.close()


async def answer_to(client: socket.socket) -> bytes:
    loop, answer = asyncio.get_running_loop(), b""
    async with asyncio.timeout(5):
        while piece := await loop.sock_recv(client, 4_096):
            answer += piece
    return answer


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_the_url_is_where_it_listens(listener: Listener, host: str, shown: str) -> None:
    try:
        url = await listener.open(host, 0, reuse_port=False)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    assert url.startswith(f"http://{shown}:")
    with socket.create_connection((host, port_of(url)), timeout=5) as client:
        client.sendall(REQUEST)
        client.setblocking(False)
        assert (await answer_to(client)).endswith(b"served")


async def test_one_port_of_all_addresses_of_both_families(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port = finder.getsockname()[1]
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    places = ((socket.AF_INET, ("0.0.0.0", port)), (socket.AF_INET6, ("::", port, 0, 0)))  # noqa: S104 - that is it

    async def look_up(*_host: object, **_hints: object) -> list[tuple[object, ...]]:
        # A resolver may name an address twice.
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in (*places, places[0])]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    # An IPv6 socket that took IPv4 as well would be in the way of the other one.
    await listener.open("any", port, reuse_port=False)
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port), timeout=5) as client:
            assert client.getpeername()[:2] == (host, port)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_all_of_ipv6_is_all_of_ipv4_as_well(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")

    async def answers() -> list[bytes]:
        listener = make_listener()
        port = port_of(await listener.listen(ListenAddress("::"), SocketAccess(), reuse_port=False))
        clients = [socket.create_connection((host, port), timeout=5) for host in ("127.0.0.1", "::1")]
        for client in clients:
            client.sendall(REQUEST)
            client.setblocking(False)
        found = [await answer_to(client) for client in clients]
        for client in clients:
            client.close()
        await listener.close()
        return found

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert [answer[-6:] for answer in runner.run(answers())] == [b"served", b"served"]


async def test_one_address_of_ipv6_is_no_other_one(listener: Listener) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    port = port_of(await listener.open("::1", 0, reuse_port=False))
    assert refuses(port)


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open(listener: Listener) -> None:
    port = port_of(await listener.open("127.0.0.1", 0, reuse_port=False))
    other = make_listener()
    for reuse_port in (False, True):
        with pytest.raises(OSError, match="in use"):
            await other.open("127.0.0.1", port, reuse_port=reuse_port)
    assert (other._servers, other._doors) == ([], [])
    await other.close()
    assert not refuses(port)


async def test_processes_may_share_a_port_where_all_of_them_say_so(listener: Listener) -> None:
    port = port_of(await listener.open("127.0.0.1", 0, reuse_port=True))
    other = make_listener()
    assert port_of(await other.open("127.0.0.1", port, reuse_port=True)) == port
    await other.close()
    assert not refuses(port)


async def test_a_closed_door_serves_all_that_have_come_and_lets_nobody_in(listener: Listener) -> None:
    port = port_of(await listener.open("127.0.0.1", 0, reuse_port=True))
    with connected(port, 20) as clients:
        await listener.close_door()
        assert refuses(port)
        answers = await asyncio.gather(*map(answer_to, clients))
    assert [answer[-6:] for answer in answers] == [b"served"] * 20


async def test_a_connection_that_was_open_goes_on_when_the_door_is_closed(listener: Listener) -> None:
    port = port_of(await listener.open("127.0.0.1", 0, reuse_port=True))
    with connected(port, 0), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.setblocking(False)
        client.sendall(REQUEST.replace(b"Connection: close\r\n", b""))
        answer = b""
        async with asyncio.timeout(5):
            while not answer.endswith(b"served"):
                answer += await asyncio.get_running_loop().sock_recv(client, 4_096)
        await listener.close_door()
        client.sendall(REQUEST)
        assert (await answer_to(client)).endswith(b"served")


async def test_what_comes_to_a_shared_port_goes_to_the_others_once_the_door_is_closed(listener: Listener) -> None:
    port = port_of(await listener.open("127.0.0.1", 0, reuse_port=True))
    other = make_listener()
    await other.open("127.0.0.1", port, reuse_port=True)
    try:
        with connected(port, 20) as before:
            await listener.close_door()
            with connected(port, 20) as after:
                answers = await asyncio.gather(*map(answer_to, [*before, *after]))
        assert all(answer.endswith(b"served") for answer in answers)
    finally:
        await other.close()


async def test_the_door_takes_no_more_than_a_bounded_number(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "ACCEPT_LIMIT", 3)
    port = port_of(await listener.open("127.0.0.1", 0, reuse_port=True))
    with connected(port, 5) as clients:
        await listener.close_door()
        ended = await asyncio.gather(*map(answer_to, clients), return_exceptions=True)
    assert sum(isinstance(one, bytes) and one.endswith(b"served") for one in ended) == 3


async def test_a_door_may_be_closed_twice_and_before_it_was_opened(listener: Listener) -> None:
    await listener.close_door()
    port = port_of(await listener.open("127.0.0.1", 0, reuse_port=True))
    await listener.close_door()
    await listener.close_door()
    assert refuses(port)


async def cancelled_at(work: asyncio.Task[object], steps: int) -> bool:
    """Whether ``work`` was still waiting after that many turns of the event loop, and has been cancelled."""
    for _ in range(steps):
        await asyncio.sleep(0)
    if work.done():
        await work
        return False
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    return True


async def test_an_opening_that_is_cancelled_anywhere_leaves_no_port_open() -> None:
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port = finder.getsockname()[1]
    steps, cancelled = 0, True
    while cancelled:
        made = make_listener()
        cancelled = await cancelled_at(asyncio.create_task(made.open("127.0.0.1", port, reuse_port=True)), steps)
        await made.close()
        assert refuses(port)
        steps += 1
    assert steps > 1


async def test_a_closing_of_the_door_that_is_cancelled_anywhere_leaves_no_connection_waiting() -> None:
    # From where it has begun: before that, it is the event loop that accepts them.
    steps, cancelled = 1, True
    while cancelled:
        made = make_listener()
        port = port_of(await made.open("127.0.0.1", 0, reuse_port=True))
        with connected(port, 5) as clients:
            cancelled = await cancelled_at(asyncio.create_task(made.close_door()), steps)
            await made.close()
            assert refuses(port)
            # Each is served or closed: none is left to wait for nobody.
            await asyncio.gather(*map(answer_to, clients), return_exceptions=True)
        steps += 1
    assert steps > 5
