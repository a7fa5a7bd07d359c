"""Opening a connection by real sockets: nothing of a request is sent where it fails, and no socket stays open."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop
from yarl import URL

from proxy.upstream.connection.client import HttpClient
from proxy.upstream.connection.faults import AnswerBroken, ConnectFailed
from proxy.upstream.connection.opening import KEEPALIVE
from tests.support.certificates import certify
from tests.support.processes import free_port
from tests.upstream.connection.servers import Server, echo, read_request, serving, silent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("opening")
    names = "subjectAltName=DNS:localhost"
    certify(made, "server", "/CN=localhost", "-addext", names)
    return made


def server_context(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    return context


def client_context(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "server.crt"))


@asynccontextmanager
async def client_of(
    timeout_s: float = 2.0, tls: ssl.SSLContext | None = None, proxy_url: str = ""
) -> AsyncIterator[HttpClient]:
    client = HttpClient({}, timeout_s, tls, proxy_url)
    try:
        yield client
    finally:
        client.close()


async def ask(client: HttpClient, server: Server, body: bytes = b"x") -> bytes:
    response = await client.post(server.url, body)
    whole = b""
    while piece := await response.read():
        whole += piece
    return whole


async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A proxy that lets all through."""
    head, _ = await read_request(reader)
    host, _, port = head.split()[1].decode().rpartition(":")
    there_reader, there_writer = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 Connection established\r\nConnection: close\r\n\r\n")

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
        target.close()

    try:
        await asyncio.gather(pass_on(reader, there_writer), pass_on(there_reader, writer))
    finally:
        there_writer.close()


async def test_nobody_listens() -> None:
    async with client_of() as client:
        with pytest.raises(ConnectFailed, match=r"Connect call failed|refused") as caught:
            await ask(client, Server(port=free_port()))
    assert caught.value.errno == 111
    assert str(caught.value).startswith("localhost:")


async def test_a_name_that_is_none() -> None:
    server = Server(port=80)
    async with client_of() as client:
        with pytest.raises(ConnectFailed, match=r"no-such-host\.invalid"):
            await client.post(server.url.with_host("no-such-host.invalid"), b"x")


async def test_the_next_address_is_tried_where_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo, host="127.0.0.1") as server, client_of() as client:
        many(monkeypatch, server, "127.0.0.2", "127.0.0.3", "127.0.0.1")
        for _ in range(3):
            assert await ask(client, server) == b"x"
            for writer in server.writers:
                writer.close()
            await server.until_nobody_is_connected()


async def test_the_next_address_is_tried_where_one_speaks_no_tls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(serving(echo, server_context(folder)))
        sick = await stack.enter_async_context(serving(hang_up, host="127.0.0.2", port=good.port))
        client = await stack.enter_async_context(client_of(tls=client_context(folder)))
        many(monkeypatch, good, "127.0.0.2", "127.0.0.1")
        assert await ask(client, good) == b"x"
        assert (sick.connections, good.connections) == (1, 1)


async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()


def many(monkeypatch: pytest.MonkeyPatch, server: Server, *ips: str) -> None:
    """The server's name has these addresses."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(_host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert port == server.port
        return [found for ip in ips for found in await real(ip, port, type=1)]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("hangs", ["TLS", "the tunnel", "TLS in the tunnel", "the name"])
async def test_all_of_opening_has_one_time(hangs: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(silent))
        server.scheme = "https"
        proxy = await stack.enter_async_context(serving(tunnel if "TLS" in hangs else silent))
        proxy_url = f"http://127.0.0.1:{proxy.port}" if "tunnel" in hangs else ""
        client = await stack.enter_async_context(client_of(0.1, client_context(folder), proxy_url))
        if hangs == "the name":
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lambda *_, **__: asyncio.sleep(60))
        with pytest.raises(ConnectFailed, match=r"^localhost:\d+: it took too long$"):
            await ask(client, server)
        await server.until_nobody_is_connected()
        await proxy.until_nobody_is_connected()


async def test_a_certificate_of_nobody_is_not_believed(folder: Path) -> None:
    async with serving(echo, server_context(folder)) as server, client_of() as client:
        with pytest.raises(ConnectFailed, match="certificate verify failed"):
            await ask(client, server)
        await server.until_nobody_is_connected()


async def test_a_certificate_of_another_name_is_not_believed(folder: Path) -> None:
    async with serving(echo, server_context(folder)) as server, client_of(tls=client_context(folder)) as client:
        assert await ask(client, server) == b"x"
        with pytest.raises(ConnectFailed, match=r"certificate verify failed.*mismatch"):
            await client.post(server.url.with_host("127.0.0.1"), b"x")


LOOPS = pytest.mark.parametrize("runs", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@LOOPS
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nmore",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"SSH-2.0\r\n",
        b"",
    ],
)
def test_a_proxy_that_gives_no_tunnel(
    answer: bytes, runs: Callable[[Coroutine[Any, Any, None]], None], folder: Path
) -> None:
    runs(ask_without_a_tunnel(answer, folder))


async def ask_without_a_tunnel(answer: bytes, folder: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    async with serving(echo, server_context(folder)) as server, serving(refuse) as proxy:
        async with client_of(tls=client_context(folder), proxy_url=f"http://127.0.0.1:{proxy.port}") as client:
            with pytest.raises(ConnectFailed, match="proxy answers 403" if b"403" in answer else "localhost"):
                await ask(client, server)
        await proxy.until_nobody_is_connected()
    assert (server.connections, proxy.connections) == (0, 1)


@LOOPS
def test_a_proxy_that_gives_a_tunnel_to_a_name_that_is_none(
    runs: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def agree(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await reader.read()

    async def ask_it() -> None:
        async with serving(agree) as proxy:
            async with client_of(proxy_url=f"http://127.0.0.1:{proxy.port}") as client:
                with pytest.raises(ConnectFailed, match=r"label .*too long"):
                    await client.post(URL(f"https://{'a' * 64}.example/"), b"x")
            await proxy.until_nobody_is_connected()

    runs(ask_it())


async def test_a_tunnel_is_used_again(folder: Path) -> None:
    async with (
        serving(echo, server_context(folder)) as server,
        serving(tunnel) as proxy,
        client_of(tls=client_context(folder), proxy_url=f"http://127.0.0.1:{proxy.port}") as client,
    ):
        for number in range(3):
            assert await ask(client, server, b"%d" % number) == b"%d" % number
    assert (server.connections, proxy.connections) == (1, 1)


async def test_a_server_that_speaks_first_was_not_asked() -> None:
    async def busy(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    async with serving(busy) as server, client_of() as client:
        # Whether it has spoken before it is asked is a matter of luck; that its answer is used once is not.
        for _ in range(20):
            try:
                response = await client.post(server.url, b"x")
            except (ConnectFailed, AnswerBroken):
                continue
            assert response.status == 503
            response.close()


@LOOPS
@pytest.mark.parametrize("way", ["plain", "TLS"])
def test_a_silent_connection_is_kept_in_the_memory_of_what_is_on_the_way(
    way: str, runs: Callable[[Coroutine[Any, Any, None]], None], folder: Path
) -> None:
    async def look() -> None:
        context = None if way == "plain" else server_context(folder)
        async with serving(echo, context) as server, client_of(tls=client_context(folder)) as client:
            assert await ask(client, server) == b"x"
            (connection,) = client._connections._open
            assert connection.transport is not None
            connected = connection.transport.get_extra_info("socket")
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            probes = [connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in KEEPALIVE]
            assert probes == list(KEEPALIVE.values())

    runs(look())


# --- Cancelled at every step ------------------------------------------------------------------------------------------

WAYS = ["plain", "TLS", "a tunnel"]


@LOOPS
@pytest.mark.parametrize("way", WAYS)
def test_it_is_cancelled_at_every_step(
    way: str, runs: Callable[[Coroutine[Any, Any, None]], None], folder: Path
) -> None:
    runs(cancel_at_every_step(way, folder))


async def cancel_at_every_step(way: str, folder: Path) -> None:
    context = None if way == "plain" else server_context(folder)
    tls = None if context is None else client_context(folder)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(echo, context))
        proxy = await stack.enter_async_context(serving(tunnel))
        proxy_url = f"http://127.0.0.1:{proxy.port}" if way == "a tunnel" else ""
        kept = await stack.enter_async_context(client_of(5.0, tls, proxy_url))
        assert await ask(kept, server) == b"x"
        open_before = psutil.Process().num_fds()
        steps, was_cancelled = 0, True
        while was_cancelled:
            # A new connection each time, and one that is used again.
            async with client_of(5.0, tls, proxy_url) as fresh:
                was_cancelled = await cancelled_after(steps, fresh, server)
            was_cancelled |= await cancelled_after(steps, kept, server)
            assert await ask(kept, server, b"mine") == b"mine"
            steps += 1
            assert steps < 2_000
        assert steps > 3
        async with asyncio.timeout(5):
            while len(server.writers) > 1 or psutil.Process().num_fds() > open_before:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)


async def cancelled_after(steps: int, client: HttpClient, server: Server) -> bool:
    """Whether a request still ran after so many turns of the loop; it is cancelled then."""
    asking = asyncio.create_task(ask(client, server, b"other"))
    for _ in range(steps):
        await asyncio.sleep(0)
        if asking.done():
            break
    asking.cancel()
    try:
        assert await asking == b"other"
    except asyncio.CancelledError:
        return True
    return False
