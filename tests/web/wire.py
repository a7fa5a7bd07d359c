"""A connection of a gateway without a socket: what a client sends is given to it, and what it sends is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from proxy.telemetry.logs import RequestLog
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import request_ids
from proxy.web.middleware.observe import Refusals
from proxy.web.server.connection import Connection, ConnectionLimits
from proxy.web.server.open_connections import OpenConnections
from proxy.web.server.request_factory import request_factory


class Wire(asyncio.Transport):
    """A client that reads all at once, but for ``unread_bytes``."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unread_bytes = 0
        self.closed = self.aborted = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def pause_reading(self) -> None:
        """Nothing waits in a kernel here."""

    def resume_reading(self) -> None:
        """The same."""


@asynccontextmanager
async def on_a_wire(app: web.Application, write_timeout_s: float = 60) -> AsyncIterator[tuple[Connection, Wire]]:
    """One connection to ``app``."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    assert runner.server is not None
    runner.server.request_factory = request_factory(runner.server.request_factory)
    metrics = Metrics()
    refusals = Refusals("test", metrics, RequestLog(), request_ids())
    opened = OpenConnections("test", 10, metrics, refusals.next_id)
    connection = Connection(runner.server, opened, ConnectionLimits(75, write_timeout_s, 32_768), refusals)
    wire = Wire()
    connection.connection_made(wire)
    try:
        yield connection, wire
    finally:
        connection.connection_lost(None)
        await runner.cleanup()
