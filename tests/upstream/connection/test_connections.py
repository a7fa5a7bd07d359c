"""Which connections are used again, for how long, and what becomes of them in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop

from proxy.upstream.connection import connections as connections_module
from proxy.upstream.connection.client import HttpClient
from proxy.upstream.connection.faults import AnswerBroken, ConnectFailed
from proxy.upstream.connection.request import Origin
from tests.upstream.connection.servers import Server, echo, read_request, serving, silent
from tests.upstream.connection.soak import soak


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient({}, 2.0)
    yield made
    made.close()


async def ask(client: HttpClient, server: Server, body: bytes = b"x") -> bytes:
    response = await client.post(server.url, body)
    whole = b""
    while piece := await response.read():
        whole += piece
    return whole


async def test_the_one_that_was_used_last_is_used_next_so_that_others_can_end(client: HttpClient) -> None:
    async with serving(echo) as server:
        await asyncio.gather(*(ask(client, server) for _ in range(5)))
        assert server.connections == 5
        used = set()
        for _ in range(10):
            response = await client.post(server.url, b"x")
            connection = response._connection
            assert await response.read() == b"x"
            used.add(connection)
        assert server.connections == 5
        assert len(used - {None}) <= 1


async def test_each_origin_has_its_own(client: HttpClient) -> None:
    async with serving(echo) as one, serving(echo) as other:
        for _ in range(3):
            assert await ask(client, one) == await ask(client, other) == b"x"
        assert (one.connections, other.connections) == (1, 1)
        assert await (await client.post(one.url.with_host("127.0.0.1"), b"y")).read() == b"y"
        assert one.connections == 2


async def keep_for(seconds: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        _, body = await read_request(reader)
        writer.write(
            b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=%d\r\nContent-Length: %d\r\n\r\n%b" % (seconds, len(body), body)
        )


@pytest.mark.parametrize(("seconds", "connections"), [(0, 3), (1, 3), (2, 1), (60, 1)])
async def test_none_is_used_for_longer_than_its_server_says(seconds: int, connections: int, client: HttpClient) -> None:
    async with serving(lambda *streams: keep_for(seconds, *streams)) as server:
        for _ in range(3):
            assert await ask(client, server) == b"x"
        assert server.connections == connections


async def test_what_is_idle_for_too_long_is_closed(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "LOOK_S", 0.01)
    async with serving(lambda *streams: keep_for(1, *streams)) as brief, serving(echo) as server:
        await asyncio.gather(ask(client, brief), ask(client, brief), ask(client, server))
        await brief.until_nobody_is_connected()
        assert len(server.writers) == 1
        for writer in server.writers:
            writer.close()
        await server.until_nobody_is_connected()
        await asyncio.sleep(0.05)
        # Nothing is left to look at.
        assert client._connections._timer is None
        assert await ask(client, server) == b"x"
        assert client._connections._timer is not None


async def test_one_that_is_closed_while_it_is_idle_is_not_used(client: HttpClient) -> None:
    async with serving(echo) as server:
        for number in range(20):
            assert await ask(client, server) == b"x"
            for writer in list(server.writers):
                writer.close()
            # With and without a turn of the loop in which the end could be seen.
            await asyncio.sleep(0.002 * (number % 2))
        assert server.connections == 20
        assert not client._connections._idle.get(Origin("localhost", server.port, is_tls=False))


async def test_one_that_is_closed_just_as_it_is_used_says_that_it_may_have_been_asked(client: HttpClient) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, body = await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        # The next request is taken, and never answered.
        await reader.read(1)

    async with serving(once) as server:
        assert await ask(client, server) == b"x"
        with pytest.raises(AnswerBroken):
            await ask(client, server)
        assert server.connections == 1


async def test_none_is_used_twice_at_a_time(client: HttpClient) -> None:
    async with serving(echo) as server:
        for _ in range(10):
            bodies = [b"%d" % number for number in range(10)]
            assert await asyncio.gather(*(ask(client, server, body) for body in bodies)) == bodies
        assert server.connections == 10


async def test_the_end_closes_those_in_use_as_well(client: HttpClient) -> None:
    async with serving(echo) as server, serving(silent) as mute:
        assert await ask(client, server) == b"x"
        waiting = asyncio.create_task(ask(client, mute))
        async with asyncio.timeout(5):
            while not mute.writers:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)
        client.close()
        assert client.closed
        with pytest.raises(AnswerBroken):
            await waiting
        await server.until_nobody_is_connected()
        await mute.until_nobody_is_connected()
        with pytest.raises(ConnectFailed):
            await ask(client, server)
        assert client._connections._open == set()


async def test_the_end_makes_no_answer_whole_that_only_its_provider_can_end(client: HttpClient) -> None:
    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await reader.read()

    async with serving(begin) as server:
        response = await client.post(server.url, b"x")
        assert await response.read() == b"half"
        client.close()
        with pytest.raises(AnswerBroken, match="this gateway"):
            await response.read()


async def test_one_that_was_being_opened_at_the_end_is_closed(client: HttpClient) -> None:
    async with serving(echo) as server:
        asking = asyncio.create_task(ask(client, server))
        await asyncio.sleep(0)
        client.close()
        with pytest.raises(ConnectFailed):
            await asking
        await server.until_nobody_is_connected()


@pytest.mark.parametrize("runs", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_no_answer_reaches_another_request(runs: Callable[..., Any]) -> None:
    ended, provider = runs(soak(2_000, at_once=20, seed=7))
    assert sum(ended.values()) == 2_000
    assert ended["whole"] > 1_000
    # All that can happen did, and connections were used again all the same.
    assert all(ended[how] for how in ("whole", "nothing", "given up", "cancelled", "broken"))
    assert provider.connections < provider.requests / 3
