"""Client and provider of one program under callgrind, in one loop, and in lock-step.

How many pieces a large answer comes in is otherwise a matter of the machine's mood, and each piece costs. So the
provider sends the next piece when the client has the last one.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import timeout

from tests.benchmarks import provider
from tests.benchmarks.generators.connection import LAST_CHUNK
from tests.benchmarks.provider import END_OF_HEAD

PIECE_BYTES = 64 * 1024
HELD_BACK_BYTES = 16 * 1024
"""What a program may keep of what it has received; the next piece comes all the same."""
PATIENCE_S = 0.5
"""After so long, the next piece comes although more than that is missing."""
ANSWER_TIMEOUT_S = 120.0
TAIL_BYTES = 500


class Passage:
    """How much of an answer has gone in, and how much has come out."""

    def __init__(self) -> None:
        self._received = 0
        self._wanted = 0
        self._arrived = asyncio.Event()

    def begin(self) -> None:
        """Another answer."""
        self._received = 0

    def received(self, count: int) -> None:
        """So many bytes have come out."""
        self._received += count
        if self._received >= self._wanted:
            self._arrived.set()

    async def passed(self, sent: int) -> None:
        """Until nearly all of ``sent`` has come out, or patience ends."""
        self._wanted = sent - HELD_BACK_BYTES
        self._arrived.clear()
        if self._received < self._wanted:
            with contextlib.suppress(TimeoutError):
                async with timeout(PATIENCE_S):
                    await self._arrived.wait()


class PacedConnection(provider.Connection):
    """The provider's side."""

    def __init__(self, answers: provider.Provider, passage: Passage) -> None:
        super().__init__(answers)
        self._passage = passage

    def write(self, wire: bytes) -> None:
        if len(wire) <= PIECE_BYTES:
            super().write(wire)
        else:
            self.waiting = asyncio.get_running_loop().create_task(self._write_in_pieces(wire))

    async def _write_in_pieces(self, wire: bytes) -> None:
        for start in range(0, len(wire), PIECE_BYTES):
            end = min(start + PIECE_BYTES, len(wire))
            super().write(wire[start:end])
            await self._passage.passed(end)


class Client(asyncio.Protocol):
    """One keep-alive connection to the program."""

    def __init__(self, passage: Passage) -> None:
        self._passage = passage
        self._head = self._tail = b""
        self._left: int | None = None
        self._whole: asyncio.Future[None] | None = None
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    async def ask(self, wire: bytes) -> None:
        """One request and its answer. Raises RuntimeError where that is no 200."""
        self._head = self._tail = b""
        self._left = None
        self._passage.begin()
        self._whole = asyncio.get_running_loop().create_future()
        self.transport.write(wire)
        async with timeout(ANSWER_TIMEOUT_S):
            await self._whole
        if self._head[9:12] != b"200":
            raise RuntimeError(f"the answer is {(self._head + self._tail)!r}")

    def data_received(self, data: bytes) -> None:
        self._passage.received(len(data))
        if not self._head.endswith(END_OF_HEAD):
            self._head += data
            head, separator, data = self._head.partition(END_OF_HEAD)
            if not separator:
                return
            self._head = head + separator
            self._left = provider.length_of(head)
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        if self._left is not None:
            self._left -= len(data)
        is_whole = self._tail.endswith(LAST_CHUNK) if self._left is None else self._left <= 0
        if is_whole and self._whole is not None and not self._whole.done():
            self._whole.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._whole is not None and not self._whole.done():
            self._whole.set_exception(error or ConnectionResetError("closed before its answer was whole"))
