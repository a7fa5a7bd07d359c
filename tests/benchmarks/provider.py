"""A provider that costs a small part of what it measures: it says again what the sample provider has said once.

``python -m tests.benchmarks.provider http://127.0.0.1:9090`` listens on a free port and says on which. The first
request of its kind is put to the sample provider there; all further ones are answered with the same bytes, by one
lookup and one write. A form is not read, only counted, and answered as a small request is. ``POST /wait`` with a number
makes all that come after it wait for so many milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import re
import socket
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import uvloop

END_OF_HEAD = b"\r\n\r\n"
CHUNK_BYTES = 128 * 1024
KINDS_MOST = 1_000
"""How many kinds of requests are remembered; one more ends the program: it would measure what it asks for."""
ASK_TIMEOUT_S = 30
JSON = "application/json"
WAIT_PATH = "/wait"
FORM_STANDS_FOR = b'{"model":"image-1","prompt":"what is answered to a form","n":1,"size":"1024x1024"}'
FORM_PATH = "/v1/images/generations"

_length = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_form = re.compile(rb"\r\ncontent-type:[ \t]*multipart/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Request:
    """What tells one kind of request from another."""

    path: str
    body: bytes


class Provider:
    """All that has been answered, by kind."""

    def __init__(self, behind: str) -> None:
        parts = urlsplit(behind)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._locks: defaultdict[Request, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.wait_s = 0.0
        self.answers: dict[Request, bytes] = {}

    async def learn(self, request: Request) -> bytes:
        """The sample provider's answer to the first request of its kind."""
        async with self._locks[request]:
            if request not in self.answers:
                if len(self.answers) >= KINDS_MOST:
                    raise RuntimeError(f"more than {KINDS_MOST:,} kinds of requests, such as {request.body[:200]!r}")
                self.answers[request] = await asyncio.to_thread(self._ask, request)
            return self.answers[request]

    def _ask(self, request: Request) -> bytes:
        connection = http.client.HTTPConnection(*self._address, timeout=ASK_TIMEOUT_S)
        with contextlib.closing(connection):
            headers = {"Authorization": "Bearer sample", "x-goog-api-key": "sample", "Content-Type": JSON}
            connection.request("POST", request.path, request.body, headers)
            response = connection.getresponse()
            return write_answer(response.status, response.headers.get("Content-Type", JSON), response.read())


def write_answer(status: int, content_type: str, body: bytes) -> bytes:
    """The bytes of an answer; events come in chunks, and everything else with its length."""
    head = f"HTTP/1.1 {status} {http.client.responses.get(status, '')}\r\nContent-Type: {content_type}\r\n".encode()
    if not content_type.startswith("text/event-stream"):
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    pieces = [body[start : start + CHUNK_BYTES] for start in range(0, len(body), CHUNK_BYTES)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def length_of(head: bytes) -> int | None:
    """What a head says of its body; None where it says nothing."""
    found = _length.search(head)
    return int(found[1]) if found else None


class Connection(asyncio.Protocol):
    """One keep-alive connection, whose requests come one after the other, each with a length."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._path = ""
        self._left = -1
        self._is_form = False
        self.waiting: asyncio.TimerHandle | asyncio.Task[None] | None = None
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no instances of the class whose methods they have.
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self.waiting is not None:
            self.waiting.cancel()

    def write(self, wire: bytes) -> None:
        """Send an answer."""
        self._transport.write(wire)

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._received += data
            head, separator, body = self._received.partition(END_OF_HEAD)
            if not separator:
                return
            self._begin(head)
            self._received, data = b"", body
        self._left -= len(data)
        if not self._is_form:
            self._received = self._received + data if self._received else data
        if self._left < 0:
            self._refuse("more than a body came before its answer")
        elif self._left == 0:
            self._left = -1
            self._answer(self._received)
            self._received = b""

    def _begin(self, head: bytes) -> None:
        length = length_of(head)
        if length is None:
            self._refuse("only requests with a length are understood")
        self._path = head[: head.index(b" HTTP/1.")].split(b" ", 1)[1].decode()
        self._left = length or 0
        self._is_form = _form.search(head) is not None

    def _answer(self, body: bytes) -> None:
        request = Request(FORM_PATH, FORM_STANDS_FOR) if self._is_form else Request(self._path, body)
        answer = self._provider.answers.get(request)
        if self._path == WAIT_PATH:
            self._provider.wait_s = int(body) / 1000
            self.write(write_answer(200, JSON, b"{}"))
        elif answer is None:
            self.waiting = self._loop.create_task(self._learn(request))
        elif self._provider.wait_s:
            self.waiting = self._loop.call_later(self._provider.wait_s, self.write, answer)
        else:
            self.write(answer)

    async def _learn(self, request: Request) -> None:
        answer = await self._provider.learn(request)
        await asyncio.sleep(self._provider.wait_s)
        self.write(answer)

    def _refuse(self, why: str) -> None:
        self._transport.abort()
        raise ValueError(why)


async def serve(behind: str) -> None:
    """Until the program is ended."""
    provider = Provider(behind)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(provider), sock=listener, backlog=4096)
    sys.stdout.write(f"provider on http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
