"""The rest of a request, which is read while it is sent, and may be answered before all of it was."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from proxy.upstream.connection.faults import AnswerBroken
from proxy.upstream.connection.protocol import Connection
from proxy.upstream.connection.response import Response


class Upload:
    """One body. ``unreadable`` says why it could not be read, which is not the provider's fault."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], size_bytes: int, on_progress: Callable[[], None]) -> None:
        """Of ``size_bytes`` altogether; ``on_progress`` is called whenever the provider has taken some of it."""
        self.size_bytes = size_bytes
        self._pieces = pieces
        self._on_progress = on_progress
        self.unreadable: Exception | None = None

    async def send(self, connection: Connection, response: Response) -> None:
        """Send all of it, as fast as it is taken; the connection belongs to ``response`` for as long."""
        left_bytes = self.size_bytes
        async with aclosing(self._pieces) as pieces:
            while True:
                try:
                    piece = await anext(pieces, b"")
                    left_bytes -= len(piece)
                    if left_bytes < 0 or (left_bytes and not piece):
                        # What is too much would be the beginning of the next request, and what is missing its end.
                        raise ValueError("a body is not as long as its head says")
                except Exception as error:
                    self.unreadable = error
                    response.fail_upload()
                    return
                if not piece:
                    break
                try:
                    await connection.write_more(piece)
                except AnswerBroken:
                    # Its answer has been told by the connection itself.
                    return
                self._on_progress()
        connection.is_uploading = False
