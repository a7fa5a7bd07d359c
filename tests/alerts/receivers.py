"""Who is told: a webhook and a mail server, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass
class Received:
    """One call of a webhook."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return orjson.loads(self.body)


@dataclass
class Receiver:
    """A webhook, and what it answers: ``statuses`` in their order, then 204."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    calls: list[Received] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        """Note the call."""
        self.calls.append(Received(dict(request.headers), await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    """A webhook for as long as the block lasts."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    async with TestServer(app, host="127.0.0.1") as server:
        receiver.url = str(server.make_url("/hook"))
        yield receiver


@dataclass
class MailServer:
    """As much of SMTP (RFC 5321) as a client needs; ``refuses`` is a command that it takes no more of.

    One that ``hangs`` says nothing until its client leaves.
    """

    port: int = 0
    refuses: str = ""
    hangs: bool = False
    mails: list[str] = field(default_factory=list)
    receivers: list[str] = field(default_factory=list)
    waiting: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if self.hangs:
            self.waiting.append(writer)
            return
        writer.write(b"220 mail.test ESMTP\r\n")
        while line := (await reader.readline()).decode().strip():
            command = line.split(":")[0].split(" ")[0].upper()
            if command == self.refuses:
                writer.write(b"451 not now\r\n")
                continue
            if command == "RCPT":
                self.receivers.append(line.partition("<")[2].rstrip(">"))
            if command == "DATA":
                writer.write(b"354 go on\r\n")
                self.mails.append((await reader.readuntil(b"\r\n.\r\n")).decode())
            writer.write(b"221 bye\r\n" if command == "QUIT" else b"250 good\r\n")
            if command == "QUIT":
                break
        await writer.drain()
        writer.close()


@asynccontextmanager
async def running_mail_server() -> AsyncIterator[MailServer]:
    """A mail server for as long as the block lasts."""
    mails = MailServer()
    server = await asyncio.start_server(mails.serve, "127.0.0.1", 0)
    mails.port = server.sockets[0].getsockname()[1]
    async with server:
        try:
            yield mails
        finally:
            for writer in mails.waiting:
                writer.close()
