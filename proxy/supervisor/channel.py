"""What a supervisor and a worker say to each other: JSON, one object a line, over a pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import orjson

LINE_BYTES_LIMIT = 2**26
"""A configuration goes in one line."""


class Channel:
    """One end of it. When the process at the other end is gone, ``receive`` says so."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use these; ``open`` makes one."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Channel:
        """Use this ``end`` of the pair."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end, limit=LINE_BYTES_LIMIT))

    def send(self, **message: Any) -> None:
        """Say something. To a process that is gone, nothing is said."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))

    async def flush(self) -> None:
        """Wait until all of it has been taken. Raises OSError."""
        await self._writer.drain()

    async def receive(self) -> dict[str, Any] | None:
        """What is said next; None where the other process is gone."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        message: dict[str, Any] | None = orjson.loads(line) if line.endswith(b"\n") else None
        return message

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
