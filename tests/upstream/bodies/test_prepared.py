from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import TraceConfig
from yarl import URL

from proxy.domain.billing.settlement import Served
from proxy.domain.requests.image import parse_image_request
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation
from proxy.upstream.auth.auth import Auth
from proxy.upstream.bodies.prepared import PREPARED_BYTES, JsonPayload, PreparedPost, make_head
from proxy.upstream.client import ProviderClient
from proxy.upstream.pool import Pool
from proxy.upstream.provider import Provider
from proxy.upstream.watchdog import Watch
from tests.domain.samples import make_model

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"data":[]}'
Request = tuple[bytes, frozenset[bytes], bytes]


class Recorder:
    """Answers every request, and keeps each as it came: its first line, its headers and its body."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *headers = head[:-4].split(b"\r\n")
                (length,) = (int(one[16:]) for one in headers if one.startswith(b"Content-Length: "))
                self.requests.append((line, frozenset(headers), await reader.readexactly(length)))
                assert len(set(headers)) == len(headers)
                writer.write(ANSWER)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def asked(dialect: str, *prompts: str, traces: Sequence[TraceConfig] = ()) -> AsyncIterator[Recorder]:
    """What a provider of this dialect was asked for the images of ``prompts``."""
    recorder = Recorder()
    server = await asyncio.start_server(recorder.talk, "127.0.0.1", 0, limit=2**20)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a%20b/v1"
    pool = Pool([Provider("one", dialect, url, Auth(key="secret-of-the-gateway"))], [], Metrics(), trace_configs=traces)
    model = make_model(provider="one")
    try:
        for prompt in prompts:
            request = parse_image_request({"prompt": prompt})
            async with pool.ask(request, model, Served(), Observation("req_1", "/"), lambda: False) as exchange:
                assert await exchange.read()
                assert not await exchange.read()
        yield recorder
    finally:
        await pool.close()
        server.close()


@pytest.mark.parametrize("dialect", ["openai", "openrouter", "gemini"])
@pytest.mark.parametrize("prompt", ["a cube", "ein Würfel 🧊", "x" * PREPARED_BYTES])
async def test_a_provider_gets_what_the_library_would_send(dialect: str, prompt: str) -> None:
    async with asked(dialect, prompt, prompt) as ours, asked(dialect, prompt, traces=[TraceConfig()]) as theirs:
        host = [{header for header in one.requests[0][1] if header.startswith(b"Host: ")} for one in (ours, theirs)]
        assert [len(each) for each in host] == [1, 1]
        (line, headers, body), again = ours.requests
        assert (line, headers - host[0], body) == (
            theirs.requests[0][0],
            theirs.requests[0][1] - host[1],
            theirs.requests[0][2],
        )
        assert again == ours.requests[0]
        assert ours.connections == 1


def test_a_head_ends_where_its_length_goes() -> None:
    head = make_head(URL("http://[::1]:8080/v1/x?a=b%20c"), {"Accept": "text/plain"})
    assert head == b"POST /v1/x?a=b%20c HTTP/1.1\r\nHost: [::1]:8080\r\nAccept: text/plain\r\n"
    assert PreparedPost(head, b"{}").text == head + b"Content-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nX: b", "a\rX: b"])
def test_no_header_begins_another(value: str) -> None:
    with pytest.raises(ValueError, match="line's end"):
        make_head(URL("http://provider.example/"), {"Authorization": value})


async def test_a_large_body_and_one_that_is_traced_are_the_librarys() -> None:
    url = URL("http://provider.example/v1/images/generations")
    provider = Provider("one", "openai", "http://provider.example/v1")
    plain = ProviderClient(provider, Watch(), Metrics())
    traced = ProviderClient(provider, Watch(), Metrics(), [TraceConfig()])
    try:
        assert type(plain.payload(url, b"{}")) is PreparedPost
        assert type(plain.payload(url, b"x" * (PREPARED_BYTES + 1))) is JsonPayload
        assert type(traced.payload(url, b"{}")) is JsonPayload
    finally:
        await plain.close()
        await traced.close()
