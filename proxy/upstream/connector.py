"""Connections to a provider that are used again only where nothing came on them that nobody asked for.

Bytes on an idle connection would be read as the answer to the next request, which may be another client's. The library
hands such connections out (https://github.com/aio-libs/aiohttp/issues/13656), so each is looked at here: what comes
while it is idle ends it, and so does what the event loop has not read yet when it is handed out.
"""

from __future__ import annotations

import asyncio
import select
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import TCPConnector
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    from aiohttp.connector import Connection

_READABLE = select.POLLIN | select.POLLPRI | select.POLLHUP | select.POLLERR


class WatchedHandler(ResponseHandler):
    """The library's protocol, which ends where anything comes while it is idle."""

    is_idle = False

    def data_received(self, data: bytes) -> None:
        """Read an answer, or end."""
        if self.is_idle and data:
            self.force_close()
            if self.transport is not None:
                self.transport.abort()
            return
        super().data_received(data)


class WatchedConnector(TCPConnector):
    """Reuses connections that are as their last answer left them, and no others."""

    def __init__(self, **settings: Any) -> None:
        """As the library's; needs a running event loop."""
        super().__init__(**settings)
        # A later version might make its protocols elsewhere, and nothing here would be looked at any more.
        if getattr(self._factory, "func", None) is not ResponseHandler:
            raise RuntimeError("aiohttp makes its connections otherwise than is known here")
        make: partial[Any] = partial(WatchedHandler, loop=asyncio.get_running_loop())
        self._factory = make
        self._poll = select.poll()

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if isinstance(protocol, WatchedHandler):
            protocol.is_idle = True
        super()._release(key, protocol, should_close=should_close)

    async def _get(self, key: Any, traces: list[Any]) -> Connection | None:
        # The first that is connected is taken, and those that are not are dropped.
        for protocol, _ in self._conns.get(key, ()):
            if self._is_as_it_was_left(protocol):
                break
            protocol.close()
        connection = await super()._get(key, traces)
        if connection is not None and isinstance(connection.protocol, WatchedHandler):
            connection.protocol.is_idle = False
        return connection

    def _is_as_it_was_left(self, protocol: ResponseHandler) -> bool:
        transport = protocol.transport
        if transport is None or transport.is_closing() or protocol.should_close:
            return False
        connected = transport.get_extra_info("socket")
        if connected is None:
            return False
        descriptor = connected.fileno()
        self._poll.register(descriptor, _READABLE)
        try:
            return not self._poll.poll(0)
        finally:
            self._poll.unregister(descriptor)
