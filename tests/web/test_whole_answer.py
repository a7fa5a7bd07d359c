"""What is sent is what aiohttp's own response would send."""

from __future__ import annotations

import asyncio
import contextlib
import re

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.web.whole_answer import WholeAnswer

BODY = b'{"created":1,"data":[{"url":"https://images.example/1.png"}]}'
HEADERS = {"Content-Type": "application/json"}


async def received(response: web.StreamResponse, request: str, *, hooked: bool, at_once: bool = False) -> bytes:
    async def answer(asked: web.Request) -> web.StreamResponse:
        # As the outermost middleware adds them.
        response.headers.update({"x-request-id": "req_1", "Server": "lightmeter"})
        if at_once and isinstance(response, WholeAnswer):
            assert await response.send(asked)
            assert (response.body, asked.writer.output_size > len(BODY)) == (b"", True)
        return response

    async def leave(_request: web.Request, prepared: web.StreamResponse) -> None:
        prepared.force_close()
        prepared.headers["Connection"] = "close"
        prepared.headers["Vary"] = "Origin"

    app = web.Application()
    app.router.add_post("/", answer)
    if hooked:
        app.on_response_prepare.append(leave)
    async with TestServer(app) as server, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(request.encode())
        if response.keep_alive is None and "close" not in request and not hooked and "1.1" in request:
            sent = await reader.readuntil(BODY)
        else:
            sent = await reader.read()
        writer.close()
    return re.sub(rb"Date: [^\r]+", b"Date: now", sent)


def lines(sent: bytes) -> tuple[bytes, set[bytes], bytes]:
    head, _, body = sent.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    assert len(headers) == len(set(headers))
    return status, set(headers), body


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("is_forced", [False, True])
@pytest.mark.parametrize(
    "request_line",
    ["POST / HTTP/1.1", "POST / HTTP/1.1\r\nConnection: close", "POST / HTTP/1.0"],
    ids=["1.1", "close", "1.0"],
)
async def test_the_bytes_are_those_of_aiohttp(request_line: str, *, is_forced: bool, hooked: bool) -> None:
    request = f"{request_line}\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    found = []
    for response, at_once in (
        (web.Response(body=BODY, headers=HEADERS), False),
        (WholeAnswer(BODY, HEADERS), False),
        (WholeAnswer(BODY, HEADERS), True),
    ):
        if is_forced:
            response.force_close()
        found.append(lines(await received(response, request, hooked=hooked, at_once=at_once)))
    assert found[2] == found[1] == found[0]
    assert found[1][2] == BODY


async def test_it_is_sent_once() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = WholeAnswer(BODY, HEADERS)
        await response.prepare(request)
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_post("/", answer)
    async with TestServer(app) as server, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        assert (await reader.read()).count(BODY) == 1
        writer.close()


async def test_a_client_that_has_left_gets_nothing() -> None:
    sent: list[bool] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        response = WholeAnswer(BODY, HEADERS)
        sent.append(await response.send(request))
        return response

    app = web.Application()
    app.router.add_post("/", answer)
    async with TestServer(app) as server, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
    assert sent == [False]
