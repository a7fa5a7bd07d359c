"""What really goes over the wire, read from the socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest

from tests.sample_provider.conftest import Client, Start

PATH = "/v1/images/generations"


@contextlib.asynccontextmanager
async def answer_to(client: Client, prompt: str) -> AsyncIterator[tuple[bytes, asyncio.StreamReader]]:
    """The answer's head, and a reader of its body as it is on the wire; the connection closes after it."""
    body = orjson.dumps({"prompt": prompt, "size": "64x64"})
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer x\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    try:
        yield await reader.readuntil(b"\r\n\r\n"), reader
    finally:
        writer.close()
        await writer.wait_closed()


def chunks_of(body: bytes) -> list[bytes]:
    chunks = []
    while body:
        size, _, body = body.partition(b"\r\n")
        chunks.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    assert chunks.pop() == b""
    return chunks


async def test_a_body_is_in_one_piece_with_its_length(start: Start) -> None:
    async with answer_to(await start(), "x") as (head, reader):
        body = await reader.read()
        assert f"Content-Length: {len(body)}\r\n".encode() in head
        assert b"Transfer-Encoding" not in head
        assert len(orjson.loads(body)["data"]) == 1


@pytest.mark.parametrize("prompt", ["[sample chunk_bytes=100] x", "[sample chunk_bytes=100 image_bytes=5000] x"])
async def test_chunks_are_as_large_as_asked(start: Start, prompt: str) -> None:
    async with answer_to(await start(), prompt) as (head, reader):
        chunks = chunks_of(await reader.read())
        assert b"Transfer-Encoding: chunked\r\n" in head
        assert b"Content-Length" not in head
        assert {len(chunk) for chunk in chunks[:-1]} == {100}
        assert len(orjson.loads(b"".join(chunks))["data"]) == 1


async def test_chunks_come_with_pauses(start: Start) -> None:
    client, loop = await start(chunk_bytes=100, chunk_delay_ms=20), asyncio.get_running_loop()
    begun_s = loop.time()
    async with answer_to(client, "x") as (_, reader):
        chunks = chunks_of(await reader.read())
    assert len(chunks) > 3
    assert loop.time() - begun_s > 0.0199 * (len(chunks) - 1)


async def test_the_body_may_wait_for_longer_than_its_headers(start: Start) -> None:
    client, loop = await start(first_byte_delay_ms=80), asyncio.get_running_loop()
    begun_s = loop.time()
    async with answer_to(client, "x") as (head, reader):
        assert head.startswith(b"HTTP/1.1 200")
        orjson.loads(await reader.read())
    assert loop.time() - begun_s > 0.079


@pytest.mark.parametrize("cut_at", [0, 1, 100, 300_000])
async def test_a_truncated_body_has_exactly_so_many_bytes(start: Start, cut_at: int) -> None:
    client = await start()
    prompt = f"[sample truncate_after={cut_at} image_bytes=1000000] x"
    async with answer_to(client, prompt) as (head, reader):
        assert b"Content-Length: 1000" in head
        assert len(await reader.read()) == cut_at
    response = await client.post(PATH, json={"prompt": prompt})
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()


async def test_a_truncated_body_in_chunks_has_no_last_chunk(start: Start) -> None:
    client = await start(truncate_after=150, chunk_bytes=100)
    async with answer_to(client, "x") as (_, reader):
        body = await reader.read()
        assert body.startswith(b"64\r\n{")
        assert len(body) == len(b"64\r\n" + b"x" * 100 + b"\r\n32\r\n" + b"x" * 50 + b"\r\n")
    response = await client.post(PATH, json={"prompt": "x"})
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()


@pytest.mark.parametrize("stall_at", [0, 200])
async def test_a_stalled_body_sends_so_many_bytes_and_no_more(start: Start, stall_at: int) -> None:
    async with answer_to(await start(stall_after=stall_at), "x") as (head, reader):
        assert b"Content-Length: " in head
        await reader.readexactly(stall_at)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)


async def test_an_error_too_can_be_cut_short(start: Start) -> None:
    async with answer_to(await start(status=500, truncate_after=10), "x") as (head, reader):
        assert head.startswith(b"HTTP/1.1 500")
        assert await reader.read() == b'{"error":{'


async def test_an_endless_body_goes_on_until_the_client_leaves(start: Start) -> None:
    client = await start()
    async with answer_to(client, "[sample endless] x") as (head, reader):
        assert b"Transfer-Encoding: chunked\r\n" in head
        await reader.readexactly(3_000_000)
        assert not reader.at_eof()
    async with answer_to(client, "x") as (head, _):
        assert head.startswith(b"HTTP/1.1 200")


async def test_an_endless_body_can_be_cut_short(start: Start) -> None:
    async with answer_to(await start(endless=True, truncate_after=500_000), "x") as (_, reader):
        assert 500_000 < len(await reader.read()) < 500_200


async def test_the_old_protocol_gets_a_body_without_chunks(start: Start) -> None:
    client = await start(chunk_bytes=100)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(f"POST {PATH} HTTP/1.0\r\nAuthorization: Bearer x\r\nContent-Length: 14\r\n\r\n".encode())
    writer.write(b'{"prompt":"x"}')
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert b"Transfer-Encoding" not in head
    assert len(orjson.loads(body)["data"]) == 1
