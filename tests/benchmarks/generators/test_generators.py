"""The load generators' own programs, before a server that does as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.benchmarks.generators import crowd, latency
from tests.benchmarks.generators.connection import is_whole

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def server(answers: list[bytes], at_once: int = 1) -> AsyncIterator[int]:
    """Gives each answer once, and then 200s, when ``at_once`` have asked; an empty one closes the connection."""
    waiting: list[asyncio.StreamWriter] = []
    left = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                waiting.append(writer)
                if len(waiting) == at_once:
                    for each in waiting:
                        answer = next(left, OK)
                        each.write(answer) if answer else each.close()
                    waiting.clear()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def test_a_crowd_asks_all_at_once_and_tells_how_many_failed(capsys: pytest.CaptureFixture[str]) -> None:
    refused = b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"
    async with server([refused, b""], at_once=40) as port:
        told = await crowd.press(port, REQUEST, 40, timeout_s=60)
    assert len(told["latencies_ms"]) == 38
    assert told["failed"] == {503: 1, 0: 1}
    assert json.loads(capsys.readouterr().out) == {"sent": 40}


async def test_a_constant_rate_has_a_sample_of_every_request_of_every_turn() -> None:
    async with server([]) as one, server([]) as other:
        subjects = {name: {"port": port, "request": REQUEST.decode()} for name, port in (("a", one), ("b", other))}
        told = await latency.follow({"subjects": subjects, "seconds": 0.2, "rate_hz": 200})
    for samples in told["samples"].values():
        assert len(samples["latencies_ms"]) == 40
        assert min(samples["latencies_ms"]) > 0
        assert samples["failed"] == 0
    assert len(told["late_ms"]) == 80


async def test_what_fails_at_a_constant_rate_is_counted() -> None:
    async with server([OK] * latency.WARM_UP_REQUESTS + [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b""]) as port:
        subjects = {"a": {"port": port, "request": REQUEST.decode()}}
        told = await latency.follow({"subjects": subjects, "seconds": 0.1, "rate_hz": 200})
    assert told["samples"]["a"]["failed"] == 2
    assert len(told["samples"]["a"]["latencies_ms"]) == 18


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Le", False),
    ],
)
def test_an_answer_ends_where_it_says(answer: bytes, whole: bool) -> None:
    assert is_whole(answer) is whole
