"""Large pieces go out without a copy, as the chunks that aiohttp would write; a slow client is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from aiohttp import ClientSession, web
from aiohttp.http_writer import SKIP_WRITELINES
from aiohttp.test_utils import TestServer

from proxy.web.relay import COPIED_BYTES, StreamedResponse

HEADERS = {"Content-Type": "application/json"}
SIZES = [1, COPIED_BYTES - 1, COPIED_BYTES, 70_000, 5, 256_000, COPIED_BYTES + 1, 100_000]
PIECES = [bytes([65 + at]) * size for at, size in enumerate(SIZES)]
LARGE = b"L" * 256_000
loops = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


class Client:
    """A request whose answer is sent as the relay sends it; ``put`` says of each piece whether it went uncopied."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.put: list[bool] = []
        self.waits = asyncio.Event()
        self.most_unread = 0
        self.error: Exception | None = None
        self.ended = asyncio.Event()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        response = StreamedResponse(HEADERS)
        await response.prepare(request)
        try:
            for piece in self.pieces:
                self.put.append(response.put(piece))
                if not self.put[-1]:
                    await response.pass_on(piece)
                if request.transport is not None:
                    self.most_unread = max(self.most_unread, request.transport.get_write_buffer_size())
                if response.is_unread:
                    self.waits.set()
                await response.catch_up()
        except ConnectionError as error:
            self.error = error
        finally:
            self.ended.set()
        return response

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self.serve)
        return app


class Server(TestServer):
    """As the gateway's, it does not cancel a handler whose client leaves."""

    async def _make_runner(self, **kwargs: Any) -> web.BaseRunner:
        return await super()._make_runner(**{**kwargs, "handler_cancellation": False})


def run(new_loop: Callable[[], Any], main: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(main(), 20))


@loops
def test_the_client_gets_every_byte_in_its_place(new_loop: Callable[[], Any]) -> None:
    async def main() -> None:
        client = Client(PIECES)
        async with Server(client.app()) as server, ClientSession() as session:
            for _ in range(2):
                async with session.get(server.make_url("/")) as answer:
                    assert answer.headers["Transfer-Encoding"] == "chunked"
                    assert await answer.read() == b"".join(PIECES)
        # The head goes out with the first of them.
        assert client.put == 2 * [at > 0 and size >= COPIED_BYTES for at, size in enumerate(SIZES)]

    run(new_loop, main)


@loops
def test_http_1_0_knows_no_chunks(new_loop: Callable[[], Any]) -> None:
    async def main() -> None:
        client = Client(PIECES)
        async with Server(client.app()) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
            assert (await reader.read()).partition(b"\r\n\r\n")[2] == b"".join(PIECES)
            writer.close()
            await writer.wait_closed()
        assert not any(client.put)

    run(new_loop, main)


@loops
def test_a_client_that_reads_slowly_is_waited_for(new_loop: Callable[[], Any]) -> None:
    async def main() -> None:
        client = Client([LARGE] * 200)
        async with Server(client.app()) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port, limit=65_536)
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            # It reads nothing, until the gateway waits.
            await client.waits.wait()
            body = (await reader.read()).partition(b"\r\n\r\n")[2]
            writer.close()
            await writer.wait_closed()
        chunk = b"3e800\r\n%b\r\n" % LARGE
        assert body == chunk * 200 + b"0\r\n\r\n"
        assert any(client.put)
        assert client.most_unread < 2 * len(LARGE)

    run(new_loop, main)


@loops
def test_a_client_that_leaves_is_noticed(new_loop: Callable[[], Any]) -> None:
    async def main() -> None:
        client = Client([LARGE] * 10_000)
        async with Server(client.app()) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port, limit=65_536)
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await reader.readexactly(1_000_000)
            writer.transport.abort()
            await client.ended.wait()
        assert isinstance(client.error, ConnectionError)

    run(new_loop, main)


@pytest.mark.skipif(not SKIP_WRITELINES, reason="this Python's asyncio reports what is left unsent of lines")
def test_no_lines_are_given_to_a_transport_that_does_not_report_what_it_leaves_unsent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_a_bound(_transport: object, _lines: object) -> None:
        raise AssertionError("CVE-2024-12254: nothing would wait for a slow client")

    monkeypatch.setattr("asyncio.selector_events._SelectorSocketTransport.writelines", without_a_bound, raising=False)

    async def main() -> None:
        client = Client(PIECES)
        async with (
            Server(client.app()) as server,
            ClientSession() as session,
            session.get(server.make_url("/")) as answer,
        ):
            assert await answer.read() == b"".join(PIECES)
        assert any(client.put)

    run(asyncio.new_event_loop, main)
