"""A provider on a raw socket: what comes on an idle connection reaches nobody, and no error holds the key."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from proxy.domain.billing.settlement import Served
from proxy.domain.errors import NoConnectionLeft, ProxyError, UpstreamUncertain, UpstreamUnreachable
from proxy.domain.requests.image import parse_image_request
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation
from proxy.upstream.auth.auth import Auth
from proxy.upstream.connection.faults import AnswerBroken, ConnectFailed, NotHttp
from proxy.upstream.errors.library import after_it_may_have_been_sent, before_it_was_sent, describe
from proxy.upstream.pool import Pool
from proxy.upstream.provider import Provider
from tests.domain.samples import make_model
from tests.support.processes import free_port

KEY = "sk-REAL-PROVIDER-KEY-of-the-tests"
Serve = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


def answer(name: str) -> bytes:
    body = b'{"created":1,"data":[{"url":"https://images.example/%b"}]}' % name.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class RawProvider:
    """Answers each request with what ``serve`` writes, and counts requests and connections."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.requests = self.connections = 0
        self.url = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                number, self.requests = self.requests, self.requests + 1
                await self.serve(number, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw_provider(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[RawProvider]:
    provider = RawProvider(serve)
    server = await asyncio.start_server(provider.talk, "127.0.0.1", 0, ssl=context)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()


@asynccontextmanager
async def pool_of(url: str, dialect: str = "openai") -> AsyncIterator[Pool]:
    pool = Pool([Provider("one", dialect, url, Auth(key=KEY))], [], Metrics())
    try:
        yield pool
    finally:
        await pool.close()


async def ask(pool: Pool) -> bytes:
    """The body of the answer to one request."""
    request, model = parse_image_request(b'{"prompt":"a cube"}'), make_model(provider="one")
    body = b""
    async with pool.ask(request, model, Served(), Observation("req_1", "/"), lambda: False) as exchange:
        while piece := await exchange.read():
            body += piece
    return body


async def test_good_connections_are_used_again() -> None:
    async def serve(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(f"{number}"))

    async with raw_provider(serve) as provider, pool_of(provider.url) as pool:
        for number in range(5):
            assert f"example/{number}".encode() in await ask(pool)
        assert provider.connections == 1


@pytest.mark.parametrize("late", [0.0, 0.05], ids=["while the loop is busy", "while nobody asks"])
@pytest.mark.parametrize(
    "extra",
    [answer("for-alice-secret"), answer("for-alice-secret")[:30], b"\r\n", b"{}", b"\x00"],
    ids=["a whole answer", "a part of one", "a line's end", "no HTTP", "a byte"],
)
async def test_what_nobody_asked_for_is_nobodys_answer(extra: bytes, late: float) -> None:
    sent = asyncio.Event()

    async def serve(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(f"for-{number}"))
        await writer.drain()
        await asyncio.sleep(0.02)
        # It is in the kernel by now, and the other end's loop has not had a turn to read it.
        writer.write(extra)
        sent.set()

    async with raw_provider(serve) as provider, pool_of(provider.url) as pool:
        for number in range(10):
            sent.clear()
            assert f"for-{number}".encode() in await ask(pool)
            await sent.wait()
            await asyncio.sleep(late)
        assert provider.connections == 10


@pytest.mark.parametrize("extra", [answer("for-alice-secret"), b"\r\n", b"\0"])
async def test_an_answer_with_more_behind_its_end_is_delivered(extra: bytes) -> None:
    async def serve(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(f"for-{number}") + extra)

    async with raw_provider(serve) as provider, pool_of(provider.url) as pool:
        for number in range(3):
            assert await ask(pool) == answer(f"for-{number}").partition(b"\r\n\r\n")[2]
        assert provider.connections == 3


async def test_a_request_that_was_not_sent_is_told_from_one_that_may_have_been() -> None:
    async def leave(_number: int, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with raw_provider(leave) as provider, pool_of(provider.url) as pool:
        with pytest.raises(UpstreamUncertain) as uncertain:
            await ask(pool)
        assert uncertain.value.headers() == {"x-should-retry": "false"}
    assert provider.requests == 1
    async with pool_of(f"http://127.0.0.1:{free_port()}") as pool:
        with pytest.raises(UpstreamUnreachable) as unreachable:
            await ask(pool)
        assert unreachable.value.headers().get("x-should-retry") != "false"


async def test_a_body_where_there_may_be_none_harms_no_other_request() -> None:
    async def serve(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 0:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n{}")
        else:
            writer.write(answer(f"for-{number}"))

    async with raw_provider(serve) as provider, pool_of(provider.url) as pool:
        with suppress(ProxyError):
            assert await ask(pool) == b""
        for number in (1, 2):
            assert f"for-{number}".encode() in await ask(pool)


NO_HTTP = {
    "a long header": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=" + b"x" * 70_000 + b"\r\n\r\n",
    "a body where there may be none": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 40_000 + b"\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a short status": b"HTTP/1.1 20 OK\r\n\r\n",
    "a long status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "an old protocol": b"HTTP/0.9 200 OK\r\n\r\n",
    "no HTTP": b"\x16\x03\x01 hello\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("dialect", ["openai", "gemini"])
@pytest.mark.parametrize("text", NO_HTTP.values(), ids=NO_HTTP)
async def test_an_answer_that_is_no_http_puts_no_key_into_log_or_error(
    text: bytes, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(_number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()
        writer.close()

    caplog.set_level(logging.DEBUG)
    async with raw_provider(serve) as provider, pool_of(provider.url, dialect) as pool:
        raised: BaseException | None = None
        try:
            await ask(pool)
        except ProxyError as error:
            raised = error
        written = [caplog.text]
        while raised is not None:
            written.append(f"{raised!r} {raised}" if isinstance(raised, ProxyError) else "")
            raised = raised.__cause__
        assert KEY not in "".join(written)


def test_a_fault_is_told_by_its_type_and_message() -> None:
    assert describe(NotHttp("bad " * 100)).startswith("NotHttp: bad bad")
    assert len(describe(NotHttp("bad " * 100))) < 250
    assert "no HTTP" in after_it_may_have_been_sent(NotHttp("x")).message
    assert "without an answer" in after_it_may_have_been_sent(AnswerBroken("x")).message
    assert isinstance(before_it_was_sent(ConnectFailed("x", 24)), NoConnectionLeft)
    assert not isinstance(before_it_was_sent(ConnectFailed("x", 111)), NoConnectionLeft)
    assert describe(TimeoutError()) == "TimeoutError"


async def test_a_connection_whose_head_had_to_be_mended_is_not_used_again() -> None:
    async def serve(_number: int, writer: asyncio.StreamWriter) -> None:
        head, _, body = answer("x").partition(b"\r\n\r\n")
        writer.write(head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with raw_provider(serve) as provider, pool_of(provider.url) as pool:
        for _ in range(3):
            assert b"/x" in await ask(pool)
        assert (provider.requests, provider.connections) == (3, 3)


@pytest.mark.parametrize("size", [1, 3, 50])
async def test_a_head_that_comes_bit_by_bit_is_read(size: int) -> None:
    async def serve(number: int, writer: asyncio.StreamWriter) -> None:
        body = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(str(number))
        for at in range(0, len(body), size):
            writer.write(body[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)

    async with raw_provider(serve) as provider, pool_of(provider.url) as pool:
        for number in range(3):
            assert b"/%d" % number in await ask(pool)
        assert provider.connections == 1


@pytest.mark.parametrize("begun", [b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1", b"SSH-2.0-x\r\n", b"\0" * 50])
async def test_a_head_that_is_none_is_an_error(begun: bytes) -> None:
    async def serve(_number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        await writer.drain()
        writer.close()

    async with raw_provider(serve) as provider, pool_of(provider.url) as pool:
        with pytest.raises(ProxyError) as caught:
            await ask(pool)
        assert caught.value.headers() == {"x-should-retry": "false"}
        assert provider.requests == 1
