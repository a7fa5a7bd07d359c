"""Many requests to a provider that answers in every way there is: none gets what another one asked for.

``python -m tests.upstream.connection.soak 1000000`` takes some minutes; the suite sends a few thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections import Counter
from dataclasses import dataclass, field

import uvloop
from yarl import URL

from proxy.upstream.connection.client import HttpClient
from proxy.upstream.connection.faults import AnswerBroken, ConnectFailed

POISON = b"POISON"
ID_BYTES = 12
SIZES = (0, 1, 100, 5_000, 200_000)


def body_of(name: bytes, size: int) -> bytes:
    """So long that it can be cut, and all of it says whose it is."""
    return name + name * (size // ID_BYTES)


def poison(number: int) -> bytes:
    """An answer that nobody asked for."""
    body = POISON + b"%d" % number
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@dataclass
class Provider:
    """Answers on one connection after the other, some oddly."""

    chance: random.Random
    requests: int = 0
    connections: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, RuntimeError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                name = await reader.readexactly(length)
                self.requests += 1
                if not await self.answer(name, writer):
                    break
        self.writers.discard(writer)
        writer.close()

    async def answer(self, name: bytes, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        chance = self.chance
        text, goes_on = self.text(name)
        if not goes_on:
            # All that comes is of the body, until the end.
            writer.write(text)
            return False
        if chance.random() < 0.3:
            at = chance.randrange(len(text))
            writer.write(text[:at])
            await writer.drain()
            await asyncio.sleep(0)
            if chance.random() < 0.05:
                return False
            text = text[at:]
        fate = chance.random()
        if fate < 0.03:
            # What comes when the next request has been sent nobody can tell from its answer.
            text += poison(self.requests)
        writer.write(text)
        await writer.drain()
        # Or closed just as it may be used again.
        return fate < 0.95

    def text(self, name: bytes) -> tuple[bytes, bool]:
        body = body_of(name, self.chance.choice(SIZES))
        way = self.chance.random()
        if way < 0.6:
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body), True
        if way < 0.9:
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part)
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunks, True
        if way < 0.95:
            return b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204 No Content\r\nX-Id: %b\r\n\r\n" % name, True
        return b"HTTP/1.1 200 OK\r\n\r\n%b" % body, False


async def ask(client: HttpClient, url: URL, name: bytes, give_up: float | None) -> str:
    """How one request ended. Raises AssertionError where what came is not its own."""
    body = b""
    try:
        response = await client.post(url, name)
        try:
            if response.status == 204:
                assert response.headers["X-Id"].encode() == name
                assert await response.read() == b""
                return "nothing"
            while piece := await response.read():
                body += piece
                if give_up is not None and give_up < 0.5:
                    return "given up"
        finally:
            response.close()
    except ConnectFailed:
        return "not sent"
    except AnswerBroken:
        assert body == name * (len(body) // ID_BYTES) + name[: len(body) % ID_BYTES]
        return "broken"
    assert body == name * (len(body) // ID_BYTES)
    assert body
    return "whole"


async def soak(requests: int, at_once: int, seed: int) -> tuple[Counter[str], Provider]:
    """How ``requests`` requests ended, ``at_once`` of them at a time."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    provider = Provider(random.Random(seed + 1))  # noqa: S311 - not a secret
    server = await asyncio.start_server(provider.talk, "127.0.0.1", 0, limit=2**20)
    url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    client = HttpClient({}, 5.0)
    ended: Counter[str] = Counter()
    numbers = iter(range(requests))

    async def one_after_the_other() -> None:
        for number in numbers:
            name = b"%012d" % number
            fate = chance.random()
            asking = asyncio.ensure_future(ask(client, url, name, fate * 10 if fate < 0.1 else None))
            if fate < 0.05:
                await asyncio.wait([asking], timeout=chance.random() * 0.002)
                asking.cancel()
            try:
                ended[await asking] += 1
            except asyncio.CancelledError:
                ended["cancelled"] += 1

    try:
        await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    finally:
        client.close()
        server.close()
        for writer in list(provider.writers):
            writer.close()
    return ended, provider


if __name__ == "__main__":
    came, asked = uvloop.run(soak(int(sys.argv[1]), 50, 1))
    sys.stdout.write(f"{dict(came)} on {asked.connections} connections\n")
