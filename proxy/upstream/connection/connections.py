"""The open connections of one provider, by whom they lead to; the one that was used last is used next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from proxy.upstream.connection.faults import ConnectFailed
from proxy.upstream.connection.opening import Opener
from proxy.upstream.connection.protocol import Connection
from proxy.upstream.connection.request import Origin
from proxy.upstream.connection.response import Response
from proxy.upstream.connection.upload import Upload

LOOK_S = 5.0
"""How often idle connections are looked at."""


class Connections:
    """How many there are is bounded by whoever asks. A connection goes back only where nothing odd has come on it."""

    def __init__(self, opener: Opener, loop: asyncio.AbstractEventLoop) -> None:
        """None is open yet."""
        self._opener = opener
        self._loop = loop
        # Each of these is used as an ordered set, of which the last is taken.
        self._idle: dict[Origin, dict[Connection, None]] = {}
        self._open: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False
        # Made once, for every connection holds them.
        self._on_free, self._on_lost = self._give_back, self._forget

    async def send(
        self, origin: Origin, request: Sequence[bytes], upload: Upload | None = None, *, expects_body: bool = True
    ) -> Response:
        """Send a request, whose body goes on with ``upload``; its answer has begun.

        Raises ConnectFailed where nothing can have been sent, AnswerBroken where it may have been.
        """
        connection = self._take(origin) or await self._connect(origin)
        response = connection.ask(request, expects_body=expects_body)
        del request
        if upload is not None:
            connection.is_uploading = True
            response.upload = self._loop.create_task(upload.send(connection, response))
        try:
            await response.begin()
        except BaseException:
            response.close()
            raise
        return response

    def close(self) -> None:
        """Close every connection, also those in use."""
        self.closed = True
        self._opener.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()

    def _take(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection, _ = idle.popitem()
            if connection.usable_until_s > self._loop.time() and connection.is_as_it_was_left:
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin) -> Connection:
        self._check_open()
        connection = await self._opener.open(origin, self._maker(origin))
        try:
            self._check_open()
        except ConnectFailed:
            connection.abort()
            raise
        if connection.transport is not None:
            self._open.add(connection)
        return connection

    def _check_open(self) -> None:
        if self.closed:
            raise ConnectFailed("the provider is no longer configured, or the gateway stops")

    def _maker(self, origin: Origin) -> Callable[[], Connection]:
        return lambda: Connection(self._loop, self._on_free, self._on_lost, origin)

    def _give_back(self, connection: Connection) -> None:
        origin = connection.origin
        if self.closed or origin is None:
            connection.abort()
            return
        idle = self._idle.get(origin)
        if idle is None:
            idle = self._idle[origin] = {}
        idle[connection] = None
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        origin = connection.origin
        idle = None if origin is None else self._idle.get(origin)
        if origin is not None and idle is not None:
            idle.pop(connection, None)
            if not idle:
                del self._idle[origin]

    def _look(self) -> None:
        """Close what has been idle for too long."""
        now_s = self._loop.time()
        for idle in list(self._idle.values()):
            for connection in [each for each in idle if each.usable_until_s <= now_s]:
                del idle[connection]
                connection.abort()
        is_any_idle = any(self._idle.values())
        self._timer = self._loop.call_later(LOOK_S, self._look) if is_any_idle else None
