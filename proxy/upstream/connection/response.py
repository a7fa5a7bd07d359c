"""The answer to one request: its head, and its body, piece by piece, as it comes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from multidict import CIMultiDict

from proxy.upstream.connection.faults import AnswerBroken
from proxy.upstream.connection.head import Head

if TYPE_CHECKING:
    from proxy.upstream.connection.protocol import Connection

HELD_BYTES = 131_072
"""What may wait to be read before the connection is read no more."""

JOINED_BYTES = 65_536
"""Pieces that wait are given as one up to this length."""


class Response:
    """Fed by its connection, and read by whoever asked. A response that is given up is closed."""

    __slots__ = ("_connection", "_fault", "_has_ended", "_head", "_held_bytes", "_loop", "_pieces", "_waiter", "upload")

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing has come yet."""
        self._connection: Connection | None = connection
        self._loop = loop
        self._head: Head | None = None
        # An empty one takes 600 bytes, and a request may wait long for its first piece.
        self._pieces: deque[bytes] | None = None
        self._held_bytes = 0
        self._has_ended = False
        self._fault: tuple[type[AnswerBroken], str] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.upload: asyncio.Task[None] | None = None
        """What still sends the request."""

    # --- For whoever asked --------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Wait for the head. Raises AnswerBroken."""
        while self._head is None:
            if self._has_ended:
                raise self._error()
            await self._wait()

    @property
    def head(self) -> Head:
        """The head, once ``begin`` has returned."""
        if self._head is None:
            raise RuntimeError("an answer is looked at after it has begun")
        return self._head

    @property
    def status(self) -> int:
        """The status code."""
        return self.head.status

    @property
    def headers(self) -> CIMultiDict[str]:
        """All headers."""
        return self.head.headers

    @property
    def content_type(self) -> str:
        """The kind of the body, without its parameters."""
        return self.head.content_type

    @property
    def is_at_end(self) -> bool:
        """Whether all of the body has been read."""
        return self._has_ended and not self._pieces and self._fault is None

    async def read(self) -> bytes:
        """The next piece of the body, nothing at its end.

        Raises AnswerBroken where it breaks off, after what had come before.
        """
        while not (pieces := self._pieces):
            if self._has_ended:
                if self._fault is not None:
                    raise self._error()
                return b""
            await self._wait()
        return self._take(pieces)

    def close(self) -> None:
        """Read no more. The connection ends with it, unless all of the answer has come."""
        upload, self.upload = self.upload, None
        if upload is not None:
            upload.cancel()
        connection, self._connection = self._connection, None
        self._pieces = None
        if connection is not None:
            self._has_ended, self._fault = True, (AnswerBroken, "it was closed")
            connection.give_up(self)
            self._wake()

    def _take(self, pieces: deque[bytes]) -> bytes:
        if len(pieces) == 1:
            piece = pieces.popleft()
            self._held_bytes = 0
        elif self._held_bytes <= JOINED_BYTES:
            piece = b"".join(pieces)
            pieces.clear()
            self._held_bytes = 0
        else:
            piece = pieces.popleft()
            self._held_bytes -= len(piece)
        connection = self._connection
        if connection is not None and connection.is_paused and self._held_bytes <= HELD_BYTES:
            connection.resume()
        return piece

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _error(self) -> AnswerBroken:
        # A new one each time: one that was raised holds the frames that it went through, and they hold this.
        kind, message = self._fault or (AnswerBroken, "it was closed")
        return kind(message)

    # --- For the connection -------------------------------------------------------------------------------------------

    def feed_head(self, head: Head) -> None:
        """The head has come."""
        self._head = head
        self._wake()

    def feed(self, piece: bytes) -> None:
        """A piece of the body has come."""
        connection, waiter = self._connection, self._waiter
        if connection is None:
            return
        if self._pieces is None:
            self._pieces = deque()
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        if waiter is not None and not waiter.done():
            # Whoever waits takes it before anything else is done: to stop reading and go on costs more than that.
            waiter.set_result(None)
        elif self._held_bytes > HELD_BYTES:
            connection.pause()

    def fail_upload(self) -> None:
        """The rest of the request cannot be sent: no answer to it is of use."""
        connection = self._connection
        self.end((AnswerBroken, "the rest of the request could not be sent"))
        if connection is not None:
            connection.give_up(self)

    def end(self, fault: tuple[type[AnswerBroken], str] | None = None) -> None:
        """Nothing more comes, by a fault or because this is all."""
        self._connection = None
        if not self._has_ended:
            self._has_ended, self._fault = True, fault
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
