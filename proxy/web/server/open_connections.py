"""The connections of one listener: how many there may be, and which of them makes room for another."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING

import orjson

from proxy.domain.errors import TooManyConnections
from proxy.telemetry.metrics import Metrics
from proxy.web.middleware.common_headers import SERVER

if TYPE_CHECKING:
    from proxy.web.server.connection import Connection

logger = logging.getLogger(__name__)

EVICTED = "evicted"
REFUSED = "refused"
UNREAD = "unread"
LOOKED_AT_LIMIT = 64
"""How many of the oldest connections are looked at for an idle one: a flood of new ones must not cost a walk each."""

QUIET_S = 60.0
"""How long the log says nothing more of a listener that is full."""


class OpenConnections:
    """Counts the connections of one listener, and makes room where there are too many.

    The idle one among the oldest goes, which may be a stranger's or a pool's spare one; a new one is refused only where
    all of those are at work.
    """

    def __init__(
        self,
        listener: str,
        limit: int,
        metrics: Metrics,
        request_id: Callable[[], str],
        now: Callable[[], float] = monotonic,
    ) -> None:
        """At most ``limit`` of ``listener``, as the metrics call it. ``now`` counts seconds."""
        self._listener = listener
        self._limit = limit
        self._metrics = metrics
        self._request_id = request_id
        self._now = now
        self._open: dict[Connection, None] = {}
        self._told_at: float | None = None
        self._untold = {EVICTED: 0, REFUSED: 0}
        metrics.before_render(lambda: metrics.connections(listener, len(self._open)))

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open)

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for a new connection, which may have cost an idle one its place."""
        if len(self._open) >= self._limit:
            idle = self._find_idle()
            if idle is None:
                self.closed(REFUSED)
                return False
            self.remove(idle)
            idle.evict()
            self.closed(EVICTED)
        self._open[connection] = None
        return True

    def remove(self, connection: Connection) -> None:
        """It is closed."""
        self._open.pop(connection, None)

    def closed(self, why: str) -> None:
        """Count a connection that the gateway has closed on its own."""
        self._metrics.connection_closed(self._listener, why)
        if why not in self._untold:
            logger.info(
                "a client of the %s listener did not read its answer in time: connection closed", self._listener
            )
            return
        self._untold[why] += 1
        now = self._now()
        if self._told_at is None or now - self._told_at >= QUIET_S:
            self._told_at = now
            logger.warning(
                "the %s listener has all of its %d connections: %d idle ones closed for new ones, %d new ones refused",
                *(self._listener, self._limit, self._untold[EVICTED], self._untold[REFUSED]),
            )
            self._untold = dict.fromkeys(self._untold, 0)

    def full_answer(self) -> bytes:
        """What a refused connection is answered."""
        error = TooManyConnections()
        body = orjson.dumps(error.body())
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "x-request-id": self._request_id(),
            "Server": SERVER,
            **error.headers(),
        }
        lines = ["HTTP/1.1 503 Service Unavailable", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _find_idle(self) -> Connection | None:
        looked_at = list(islice(self._open, LOOKED_AT_LIMIT))
        for connection in looked_at:
            if connection.is_idle:
                return connection
        # Those that are at work now are looked at last the next time.
        for connection in looked_at:
            del self._open[connection]
            self._open[connection] = None
        return None
