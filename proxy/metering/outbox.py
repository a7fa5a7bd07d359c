"""What the store has yet to be told: written to the journal first, then told until the store has taken it, once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from itertools import islice

from proxy.domain.errors import StoreUnavailable
from proxy.metering.journal import Journal, JournalError
from proxy.metering.journal_records import Owed, Posting, Void, write_record
from proxy.metering.leases import Leases
from proxy.metering.store import Store
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0
BATCH = 200
VOIDS_LIMIT = 10_000
"""Admissions to be taken back at one time. Beyond that their leases run out; settlements are never too many."""

FIRST_REPLAY_S = 5.0
HOUSEKEEPING_S = 5.0


class Outbox:
    """Settlements and voids on their way to a store that was away."""

    def __init__(self, store: Store, journal: Journal, leases: Leases, metrics: Metrics) -> None:
        """Keep in ``journal`` what ``store`` has not taken, and its leases renewed until then."""
        self._store = store
        self._journal = journal
        self._leases = leases
        self._metrics = metrics
        self._owed: dict[str, Owed] = {}
        self._adding: set[asyncio.Task[None]] = set()
        self._telling: asyncio.Task[None] | None = None
        self._housekeeping: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def can_record(self) -> bool:
        """Whether a settlement could be written down, should the store not take it."""
        return self._journal.healthy

    async def start(self) -> None:
        """Open the journal, and tell the store what the process before has left. Raises JournalError."""
        await self._journal.open()
        self._store.on_connected(self._wake.set)
        self._adopt(await self._journal.adopt())
        if self._telling is not None:
            await asyncio.wait((self._telling,), timeout=FIRST_REPLAY_S)
        self._housekeeping = asyncio.create_task(self._keep_house())

    async def add(self, owed: Owed) -> None:
        """Write it down, and tell the store as soon as it can be reached."""
        self._owed[owed.id] = owed
        self._count()
        try:
            await self._journal.write((owed,))
        except JournalError:
            logger.critical("not written down, and kept in memory alone: %s", write_record(owed).decode().strip())
        finally:
            self._tell_soon()

    def add_soon(self, owed: Owed) -> None:
        """The same without waiting; being cancelled does not stop it."""
        if isinstance(owed, Void):
            if len(self._owed) >= VOIDS_LIMIT:
                return
            # Or the first admission after an outage would find that its lease has run out, and might charge it.
            self._leases.hold(owed.id, owed.team)
        self._owed[owed.id] = owed
        task = asyncio.get_running_loop().create_task(self.add(owed))
        self._adding.add(task)
        task.add_done_callback(self._adding.discard)

    async def close(self, timeout_s: float) -> None:
        """Give the store ``timeout_s`` seconds more to take what it is owed; the rest stays in the journal."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._housekeeping
        if self._adding:
            await asyncio.wait(self._adding)
        telling = self._telling
        if telling is not None:
            self._wake.set()
            await asyncio.wait((telling,), timeout=timeout_s)
            telling.cancel()
            await asyncio.wait((telling,))
        if self._owed:
            await self._leave_for_the_next()
        await self._journal.close(nothing_owed=not self._owed)

    # --- Telling the store --------------------------------------------------------------------------------------------

    def _tell_soon(self) -> None:
        if self._owed and self._telling is None:
            self._telling = asyncio.create_task(self._tell_all())

    async def _tell_all(self) -> None:
        pause_s = FIRST_RETRY_S
        try:
            while self._owed:
                batch = list(islice(self._owed.values(), BATCH))
                self._wake.clear()
                results = await asyncio.gather(*map(self._tell, batch), return_exceptions=True)
                taken = [owed.id for owed, result in zip(batch, results, strict=True) if result is None]
                for owed_id in taken:
                    self._owed.pop(owed_id, None)
                    self._leases.drop(owed_id)
                self._count()
                await self._journal.taken(taken, nothing_owed=not self._owed)
                if len(taken) == len(batch):
                    pause_s = FIRST_RETRY_S
                    continue
                self._put_last(batch, results)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                pause_s = min(LAST_RETRY_S, pause_s * 2)
        finally:
            self._telling = None

    async def _tell(self, owed: Owed) -> None:
        if isinstance(owed, Posting):
            await self._store.settle(owed.settlement)
        else:
            await self._store.void(owed.reservation_id, owed.team, owed.key_id)

    def _put_last(self, batch: Iterable[Owed], results: Iterable[BaseException | None]) -> None:
        """One that cannot be told must not stand in the way of the others."""
        for owed, result in zip(batch, results, strict=True):
            if result is not None and owed.id in self._owed:
                self._owed[owed.id] = self._owed.pop(owed.id)
                if not isinstance(result, StoreUnavailable):
                    logger.error("%s could not be settled, and will be tried again", owed.id, exc_info=result)

    def _count(self) -> None:
        self._metrics.journal_pending(len(self._owed))

    # --- The journal --------------------------------------------------------------------------------------------------

    def _adopt(self, found: Iterable[Owed]) -> None:
        for owed in found:
            self._owed[owed.id] = owed
            # Until it is settled it should not be written off as expired.
            self._leases.hold(owed.id, owed.team)
        self._count()
        self._tell_soon()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            if await self._journal.probe() and self._owed:
                # Some of it was kept in memory alone while the journal could not be written.
                with contextlib.suppress(JournalError):
                    await self._journal.write(list(self._owed.values()))
            self._adopt(await self._journal.adopt())

    async def _leave_for_the_next(self) -> None:
        if not self._journal.healthy:
            try:
                await self._journal.write(list(self._owed.values()))
            except JournalError:
                for owed in self._owed.values():
                    logger.critical("lost, the store and the journal being away: %s", write_record(owed).decode())
                return
        logger.error(
            "the store has not taken %d settlements: they are in %s, for the next start",
            len(self._owed),
            self._journal.folder,
        )
