"""What a provider gets, byte by byte, and uploads that are answered early, late, or never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from proxy.domain.billing.settlement import Served
from proxy.domain.requests.image import parse_image_request
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation
from proxy.upstream.auth.auth import Auth
from proxy.upstream.connection.client import JOINED_BYTES, HttpClient, RequestTraces
from proxy.upstream.connection.faults import AnswerBroken, ConnectFailed
from proxy.upstream.connection.upload import Upload
from proxy.upstream.pool import Pool
from proxy.upstream.provider import Provider
from tests.domain.samples import make_model
from tests.support.processes import free_port
from tests.upstream.connection.servers import echo, read_request, serving, silent

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"data":[]}'
SECRET = "secret-of-the-gateway"
KEYS = {
    "openai": f"Authorization: Bearer {SECRET}",
    "openrouter": f"Authorization: Bearer {SECRET}",
    "gemini": f"x-goog-api-key: {SECRET}",
}


class Recorder:
    """Answers every request, and keeps each as it came."""

    def __init__(self) -> None:
        self.requests: list[tuple[list[str], bytes]] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, body = await read_request(reader)
            self.requests.append((head.decode().split("\r\n")[:-2], body))
            writer.write(ANSWER)


class Spans(RequestTraces):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def ask(self, method: str, url: URL) -> Mapping[str, str]:
        self.told.append((method, url.path))
        return {"traceparent": "00-1-2-01"}

    def answered(self, status: int) -> None:
        self.told.append(status)

    def not_answered(self, error: BaseException) -> None:
        self.told.append(type(error))


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("dialect", KEYS)
@pytest.mark.parametrize("prompt", ["a cube", "ein Würfel 🧊", "x" * JOINED_BYTES])
async def test_what_a_provider_gets(dialect: str, prompt: str, *, traced: bool) -> None:
    recorder, spans = Recorder(), Spans()
    async with serving(recorder.talk) as server:
        url = f"http://localhost:{server.port}/a%20b/v1"
        provider = Provider("one", dialect, url, Auth(key=SECRET))
        pool = Pool([provider], [], Metrics(), traces=spans if traced else None)
        request, model = parse_image_request({"prompt": prompt}), make_model(provider="one")
        for _ in range(2):
            async with pool.ask(request, model, Served(), Observation("req_1", "/"), lambda: False) as exchange:
                assert await exchange.read()
                assert not await exchange.read()
        await pool.close()
        assert server.connections == 1
    first, again = recorder.requests
    assert first == again
    (line, *headers), body = first
    assert line.startswith("POST /a%20b/v1/")
    assert line.endswith(" HTTP/1.1")
    assert prompt.encode() in body
    accepts = "application/json, text/event-stream"
    expected = {
        f"Host: localhost:{server.port}", f"Accept: {accepts}", "Accept-Encoding: identity",
        "Content-Type: application/json", "User-Agent: lightmeter", KEYS[dialect], f"Content-Length: {len(body)}",
        *(["traceparent: 00-1-2-01"] if traced else []),
    }  # fmt: skip
    assert set(headers) == expected
    assert len(headers) == len(expected)
    path = URL(line.split()[1], encoded=True).path
    assert spans.told == [("POST", path), 200] * 2 * traced


@asynccontextmanager
async def client_of(traces: RequestTraces | None = None) -> AsyncIterator[HttpClient]:
    client = HttpClient({"Content-Type": "application/json", "X": "y"}, 2.0, traces=traces)
    try:
        yield client
    finally:
        client.close()


@pytest.mark.parametrize("traced", [False, True])
async def test_requests_without_a_body(*, traced: bool) -> None:
    recorder = Recorder()
    async with serving(recorder.talk) as server, client_of(Spans() if traced else None) as client:
        for method in ("GET", "PUT"):
            response = await client.request(method, server.url, {"x": "z"})
            assert await response.read() == b'{"data":[]}'
    trace = ["traceparent: 00-1-2-01"] if traced else []
    host = f"Host: localhost:{server.port}"
    assert recorder.requests == [
        (["GET / HTTP/1.1", host, "x: z", *trace], b""),
        (["PUT / HTTP/1.1", host, "x: z", *trace, "Content-Length: 0"], b""),
    ]


async def test_those_of_other_credentials_are_not_sent_any_more() -> None:
    recorder = Recorder()
    async with serving(recorder.talk) as server, client_of() as client:
        old, new = {"Authorization": "old"}, {"Authorization": "new"}
        for headers in (None, old, old, new, None):
            (await client.post(server.url, b"{}", headers)).close()
    sent = [[line for line in head if line.startswith("Auth")] for head, _ in recorder.requests]
    assert sent == [[], ["Authorization: old"], ["Authorization: old"], ["Authorization: new"], []]


async def test_a_trace_is_told_of_what_has_no_answer() -> None:
    spans = Spans()
    async with serving(silent) as server, client_of(spans) as client:
        with pytest.raises(ConnectFailed):
            await client.post(URL(f"http://127.0.0.1:{free_port()}/x"), b"")
        asking = asyncio.create_task(client.post(server.url, b""))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert spans.told == [("POST", "/x"), ConnectFailed, ("POST", "/"), asyncio.CancelledError]


# --- Uploads ----------------------------------------------------------------------------------------------------------

PIECE = b"p" * 65_536
PIECES = 200
SIZE = PIECES * len(PIECE)


class Source:
    """The pieces of a body; ``error`` comes in place of the last."""

    def __init__(self, pieces: int = PIECES, error: Exception | None = None, size_bytes: int | None = None) -> None:
        self.given = self.progress = 0
        self.is_closed = False
        self._pieces, self._error = pieces, error
        self.upload = Upload(self._give(), pieces * len(PIECE) if size_bytes is None else size_bytes, self._note)

    def _note(self) -> None:
        self.progress += 1

    async def _give(self) -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(self._pieces):
                await asyncio.sleep(0)
                self.given += 1
                if self._error is not None and self.given == self._pieces:
                    raise self._error
                yield PIECE
        finally:
            self.is_closed = True


HEADERS = {"Content-Type": "application/octet-stream"}


async def test_an_upload_is_sent_as_it_is_read_and_its_connection_is_used_again() -> None:
    recorder, source = Recorder(), Source()
    async with serving(recorder.talk) as server, client_of() as client:
        response = await client.post_upload(server.url, source.upload, HEADERS)
        assert await response.read() == b'{"data":[]}'
        assert (source.given, source.progress, source.is_closed) == (PIECES, PIECES, True)
        (await client.post(server.url, b"{}")).close()
        assert server.connections == 1
    (head, body), _ = recorder.requests
    assert body == PIECE * PIECES
    assert "Content-Type: application/octet-stream" in head
    assert f"Content-Length: {SIZE}" in head
    assert len([line for line in head if line.startswith("Content-Type")]) == 1


async def test_no_more_is_read_than_the_provider_takes() -> None:
    async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    source = Source(10_000)
    async with serving(deaf) as server, client_of() as client:
        asking = asyncio.create_task(client.post_upload(server.url, source.upload, HEADERS))
        given = -1
        while given != source.given:
            given = source.given
            await asyncio.sleep(0.1)
        assert 0 < given < 500
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0.01)
        assert source.is_closed


async def test_an_answer_before_the_end_of_an_upload_is_read_and_ends_it() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"}")
        await writer.drain()
        while await reader.read(65_536):
            pass

    source = Source(100_000)
    async with serving(refuse) as server, client_of() as client:
        response = await client.post_upload(server.url, source.upload, HEADERS)
        assert (response.status, await response.read(), await response.read()) == (413, b"{", b"}")
        response.close()
        await server.until_nobody_is_connected()
        assert source.is_closed
        assert source.given < 100_000


async def test_a_provider_that_leaves_in_the_middle_of_an_upload() -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    source = Source(100_000)
    async with serving(leave) as server, client_of() as client:
        with pytest.raises(AnswerBroken):
            await client.post_upload(server.url, source.upload, HEADERS)
        await asyncio.sleep(0.01)
        assert source.is_closed
        assert source.upload.unreadable is None


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 413 Too Large\r\n\r\nno"], ids=["no answer", "an early answer"])
async def test_a_provider_that_says_no_more_and_takes_nothing_is_not_waited_for(answer: bytes) -> None:
    async def say_all(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        given = -1
        while given != source.given:
            given = source.given
            await asyncio.sleep(0.05)
        writer.write(answer)
        writer.write_eof()
        await asyncio.sleep(60)

    source = Source(10_000)
    async with asyncio.timeout(5), serving(say_all) as server, client_of() as client:
        asking = client.post_upload(server.url, source.upload, HEADERS)
        if answer:
            response = await asking
            assert (response.status, await response.read(), await response.read()) == (413, b"no", b"")
        else:
            with pytest.raises(AnswerBroken):
                await asking


@pytest.mark.parametrize("error", [OSError("the disk"), ValueError("closed"), RuntimeError("a fault of ours")])
async def test_an_upload_that_cannot_be_read_says_so_and_ends_the_connection(error: Exception) -> None:
    source = Source(3, error)
    async with serving(echo) as server, client_of() as client:
        with pytest.raises(AnswerBroken):
            await client.post_upload(server.url, source.upload, HEADERS)
        assert source.upload.unreadable is error
        await server.until_nobody_is_connected()


@pytest.mark.parametrize("size_bytes", [2 * len(PIECE) - 1, 2 * len(PIECE) + 1], ids=["longer", "shorter"])
async def test_an_upload_that_is_not_as_long_as_it_should_be_reaches_no_other_request(size_bytes: int) -> None:
    came = bytearray()

    async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while piece := await reader.read(65_536):
            came.extend(piece)
            if len(came) >= size_bytes:
                writer.write(ANSWER)

    source = Source(2, size_bytes=size_bytes)
    async with serving(answer_early) as server, client_of() as client:
        with pytest.raises(AnswerBroken):
            await client.post_upload(server.url, source.upload, HEADERS)
        assert isinstance(source.upload.unreadable, ValueError)
        await server.until_nobody_is_connected()
    assert len(came) <= size_bytes
