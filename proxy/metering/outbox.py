"""What the store has not stored yet: written to the journal first, then posted until the store has stored it, once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterable
from itertools import islice

from proxy.domain.errors import JournalUnavailable, StoreUnavailable
from proxy.metering.journal.journal import Journal, JournalError
from proxy.metering.journal.records import JournalRecord, Posting, Void, write_record
from proxy.metering.leases import Leases
from proxy.metering.store import SettlementTrimmedError, Store
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.program import PROGRAM

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0
BATCH = 200
VOIDS_LIMIT = 10_000
"""Admissions to be voided at one time. Beyond that nothing more is admitted; settlements are never too many."""

TRIES_TO_TELL = 20
"""How often a record may be refused for what it is before it is parked: about half a minute."""

RECORD_REFUSALS = frozenset({"WRONGTYPE", "ERR"})
"""Errors of the store that are about a record, not about the store: those pass by themselves, these hardly ever."""

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
        self._owed: dict[str, JournalRecord] = {}
        self._voids: set[str] = set()
        self._unwritten: set[str] = set()
        """Ids of what is kept in memory alone, the journal not having taken it."""
        self._refusals: Counter[str] = Counter()
        self._adding: set[asyncio.Task[None]] = set()
        self._posting_task: asyncio.Task[None] | None = None
        self._housekeeping: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def refusal(self) -> StoreUnavailable | None:
        """Why a settlement or a void could not be kept, should the store not take it; None where it could."""
        if not self._journal.healthy:
            return JournalUnavailable()
        return StoreUnavailable() if len(self._voids) >= VOIDS_LIMIT else None

    async def start(self) -> None:
        """Open the journal, and post what the process before has left. Raises JournalError."""
        await self._journal.open()
        self._store.on_connected(self._wake.set)
        await self._journal.count_parked()
        self._adopt(await self._journal.adopt())
        if self._posting_task is not None:
            await asyncio.wait((self._posting_task,), timeout=FIRST_REPLAY_S)
        self._housekeeping = asyncio.create_task(self._keep_house())

    async def add(self, owed: JournalRecord) -> None:
        """Write it down, and post it as soon as the store can be reached."""
        self._owe(owed)
        self._count()
        # Until it is seen on the disk: a caller that is cancelled does not see it.
        self._unwritten.add(owed.id)
        try:
            await self._journal.write((owed,))
            self._unwritten.discard(owed.id)
        except Exception as error:
            if not isinstance(error, JournalError):
                logger.exception("the journal met something unforeseen")
            logger.critical("not written down, and kept in memory alone: %s", write_record(owed).decode().strip())
        finally:
            self._post_soon()

    def add_soon(self, owed: JournalRecord) -> None:
        """The same without waiting; being cancelled does not stop it."""
        if isinstance(owed, Void):
            # Or the first admission after an outage would find that its lease has expired, and might charge it.
            self._leases.hold(owed.id, owed.team)
        self._owe(owed)
        task = asyncio.get_running_loop().create_task(self.add(owed))
        self._adding.add(task)
        task.add_done_callback(self._adding.discard)

    async def close(self, timeout_s: float) -> None:
        """Give the store ``timeout_s`` seconds more to take what it is owed; the rest stays in the journal."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.wait((self._housekeeping,))
        if self._adding:
            await asyncio.wait(self._adding)
        task = self._posting_task
        if task is not None:
            self._wake.set()
            await asyncio.wait((task,), timeout=timeout_s)
            task.cancel()
            await asyncio.wait((task,))
        if self._owed:
            await self._leave_for_the_next()
        await self._journal.close()

    # --- Telling the store --------------------------------------------------------------------------------------------

    def _post_soon(self) -> None:
        if self._owed and self._posting_task is None:
            self._posting_task = asyncio.create_task(self._post_all())

    async def _post_all(self) -> None:
        pause_s = FIRST_RETRY_S
        try:
            while self._owed:
                self._wake.clear()
                try:
                    all_taken = await self._post_batch()
                except Exception:
                    logger.exception("what the journal holds could not be posted, and will be tried again")
                    all_taken = False
                if all_taken:
                    pause_s = FIRST_RETRY_S
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                pause_s = min(LAST_RETRY_S, pause_s * 2)
        finally:
            self._posting_task = None

    async def _post_batch(self) -> bool:
        """Tell the store of some records; whether it has taken them all."""
        batch = list(islice(self._owed.values(), BATCH))
        results = await asyncio.gather(*map(self._post, batch), return_exceptions=True)
        done = []
        for owed, result in zip(batch, results, strict=True):
            if result is None or (self._should_park(owed, result) and await self._park(owed, result)):
                done.append(owed.id)
            elif owed.id in self._owed:
                # One that cannot be posted must not stand in the way of the others.
                self._owed[owed.id] = self._owed.pop(owed.id)
        for owed_id in done:
            self._forget(owed_id)
        self._count()
        await self._journal.taken(done)
        return len(done) == len(batch)

    async def _post(self, owed: JournalRecord) -> None:
        if isinstance(owed, Posting):
            await self._store.settle(owed.settlement)
        else:
            await self._store.void(owed.reservation_id, owed.team, owed.key_id)

    def _should_park(self, owed: JournalRecord, result: BaseException) -> bool:
        """Whether it was refused for what it is, and not for how the store is, and often enough."""
        if isinstance(result, SettlementTrimmedError):
            return True
        if isinstance(result, StoreUnavailable):
            if result.refusal.partition(" ")[0] not in RECORD_REFUSALS:
                return False
        elif not self._refusals[owed.id]:
            logger.error("%s could not be settled, and will be tried again", owed.id, exc_info=result)
        self._refusals[owed.id] += 1
        return self._refusals[owed.id] >= TRIES_TO_TELL

    async def _park(self, owed: JournalRecord, result: BaseException) -> bool:
        """Keep it for a person; False where the disk does not take it, and it stays owed."""
        reason = result.refusal if isinstance(result, StoreUnavailable) else str(result) or repr(result)
        try:
            path = await self._journal.park(owed, reason)
        except OSError as error:
            logger.error("%s cannot be parked (%s), and will be posted again", owed.id, error)
            return False
        logger.error(
            "%s was not taken by the store and is parked in %s: %s. See it with `%s`; when the cause is mended `%s`, "
            "or `%s --reason TEXT` if it must not be posted",
            *(owed.id, path, reason),
            *(
                PROGRAM.command_elsewhere(words)
                for words in ("journal list", f"journal retry {owed.id}", f"journal drop {owed.id}")
            ),
        )
        await self._journal.count_parked()
        return True

    def _owe(self, owed: JournalRecord) -> None:
        self._owed[owed.id] = owed
        if isinstance(owed, Void):
            self._voids.add(owed.id)

    def _forget(self, owed_id: str) -> None:
        self._owed.pop(owed_id, None)
        self._voids.discard(owed_id)
        self._unwritten.discard(owed_id)
        self._refusals.pop(owed_id, None)
        self._leases.drop(owed_id)

    def _count(self) -> None:
        self._metrics.journal_pending(len(self._owed))

    # --- The journal --------------------------------------------------------------------------------------------------

    def _adopt(self, found: Iterable[JournalRecord]) -> None:
        for owed in found:
            self._owe(owed)
            # Until it is settled it should not be written off as expired.
            self._leases.hold(owed.id, owed.team)
        self._count()
        self._post_soon()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            try:
                await self._look_after_journal()
            except Exception:
                logger.exception("the journal could not be looked after, and will be again in %g s", HOUSEKEEPING_S)

    async def _look_after_journal(self) -> None:
        again = await self._journal.probe()
        if self._owed and (again or (self._journal.healthy and self._unwritten)):
            # Some of it was kept in memory alone, or in a file that is gone.
            with contextlib.suppress(JournalError):
                await self._write_all_owed()
        self._adopt(await self._journal.adopt())
        await self._journal.count_parked()

    async def _write_all_owed(self) -> None:
        owed = list(self._owed.values())
        await self._journal.write(owed)
        self._unwritten.difference_update(each.id for each in owed)

    async def _leave_for_the_next(self) -> None:
        if self._unwritten or not self._journal.healthy:
            try:
                await self._write_all_owed()
            except Exception as error:
                if not isinstance(error, JournalError):
                    logger.exception("the journal met something unforeseen")
                for owed in self._owed.values():
                    logger.critical("lost, the store and the journal being away: %s", write_record(owed).decode())
                return
        logger.error(
            "the store has not taken %d settlements: they are in %s, for the next start",
            len(self._owed),
            self._journal.folder,
        )
