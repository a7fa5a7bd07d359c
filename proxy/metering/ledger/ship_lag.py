"""How far behind the shippers of the ledger are: for Prometheus, and for whoever reads the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic

from proxy.domain.errors import StoreUnavailable
from proxy.metering.ledger.shipped import ShippedLedger
from proxy.metering.tasks import end_task
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

REFRESH_S = 15.0
LATE_S = 3_600.0
"""After so long it is told, and told again each time that as much has passed."""


class ShipLag:
    """A task that looks how far each of ``shippers`` is.

    One that has never shipped everything, or that cannot be asked for, is behind since this process began.
    """

    def __init__(self, shipped: ShippedLedger, metrics: Metrics, shippers: Sequence[str]) -> None:
        """Ask ``shipped``, and show in ``metrics`` how far behind each is at a scrape."""
        self._shipped = shipped
        self._metrics = metrics
        # By the clock of this process, up to when all was shipped.
        self._caught_up_s = dict.fromkeys(shippers, monotonic())
        self._told_s = dict.fromkeys(shippers, 0.0)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look for as long as the process lives."""
        if self._caught_up_s:
            self._metrics.before_render(self._show)
            self._task = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            await end_task(self._task)

    def _show(self) -> None:
        now_s = monotonic()
        for name, at_s in self._caught_up_s.items():
            self._metrics.ship_lag(name, max(0.0, now_s - at_s))

    async def _keep_looking(self) -> None:
        while True:
            try:
                behind_s = await self._shipped.behind_s(list(self._caught_up_s))
                for name, seconds in behind_s.items():
                    self._caught_up_s[name] = monotonic() - seconds
            except StoreUnavailable:
                # lightmeter_store_up says so; the lag grows meanwhile.
                logger.debug("how far the ledger has been shipped could not be read")
            except Exception:
                logger.exception("how far the ledger has been shipped could not be read")
            self._tell()
            await asyncio.sleep(REFRESH_S)

    def _tell(self) -> None:
        now_s = monotonic()
        for name, at_s in self._caught_up_s.items():
            lag_s, told_s = now_s - at_s, self._told_s[name]
            if lag_s >= told_s + LATE_S:
                logger.warning(
                    "the shipper '%s' has not shipped the whole ledger for %.1f hours; entries that it has not shipped "
                    "are not trimmed, and take up the store's memory",
                    name,
                    lag_s / 3_600,
                )
                self._told_s[name] = lag_s
            elif told_s and lag_s < LATE_S:
                logger.info("the shipper '%s' has shipped the whole ledger again", name)
                self._told_s[name] = 0.0
