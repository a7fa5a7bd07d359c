"""Settlements that the store has just taken, told once more on each new connection to it.

A store that was killed may have lost the last second or two of what it had acknowledged (``appendfsync everysec``), and
one that took over by fail-over what had not been replicated. For as long as this process remembers, nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial

from proxy.domain.settlement import Settlement
from proxy.metering.store import Store
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

MEMORY_S = 3.0
"""Redis flushes its append-only file every second, and may be a second late with it."""

LIMIT = 20_000


class RecentSettlements:
    """The settlements of the last seconds, with the ids of their ledger entries."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        """Tell ``store`` again; needs a running event loop."""
        self._store = store
        self._metrics = metrics
        self._time = asyncio.get_running_loop().time
        self._taken: deque[tuple[float, Settlement, str]] = deque(maxlen=LIMIT)

    def add(self, settlement: Settlement, entry_id: str) -> None:
        """The store says that this is the ledger entry ``entry_id``."""
        now, taken = self._time(), self._taken
        taken.append((now, settlement if settlement.ending is None else settlement.without_answer(), entry_id))
        while taken[0][0] < now - MEMORY_S:
            taken.popleft()

    def tell_again(self) -> None:
        """Settle them all once more, before anybody's admission counts on what the store has lost."""
        for _, settlement, entry_id in self._taken:
            self._store.settle_again(settlement, partial(self._compare, settlement.reservation.id, entry_id))

    def _compare(self, reservation_id: str, before: str, after: str) -> None:
        if after != before:
            logger.error("the store had lost the settlement of %s; it has been posted again", reservation_id)
            self._metrics.reposted(1)
