"""One keep-alive connection that has at most one request under way, as cheap as Python makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from tests.benchmarks.provider import END_OF_HEAD, length_of

LAST_CHUNK = b"0\r\n\r\n"
GONE = 0
"""The status of what got no whole answer."""

Answered = Callable[["Connection", int, float], None]


class Connection(asyncio.Protocol):
    """Tells ``answered`` of each answer that is whole, and of one that never will be: status, and when it was due."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self._received = b""
        self.asked_s: float | None = None
        """When the request that is under way was due; None where there is none."""
        self.transport: asyncio.WriteTransport

    def ask(self, request: bytes, due_s: float) -> None:
        """Send a request that was due at this time of the loop."""
        self._received = b""
        self.asked_s = due_s
        if self.transport.is_closing():
            self._end(GONE)
        else:
            self.transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no instances of the class whose methods they have.
        self.transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if self.asked_s is not None and is_whole(self._received):
            self._end(int(self._received[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        if self.asked_s is not None:
            self._end(GONE)

    def _end(self, status: int) -> None:
        asked_s, self.asked_s = self.asked_s, None
        assert asked_s is not None
        self._answered(self, status, asked_s)


def is_whole(answer: bytes) -> bool:
    """Whether an answer has come to its end. One without a length ends with its last chunk."""
    head, separator, body = answer.partition(END_OF_HEAD)
    if not separator:
        return False
    length = length_of(head)
    return body.endswith(LAST_CHUNK) if length is None else len(body) >= length
