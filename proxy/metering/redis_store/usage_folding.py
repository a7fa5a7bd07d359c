"""Keeps what is counted by day and by model from growing for ever: days that are long past are summed up."""

from __future__ import annotations

import asyncio
import logging
from itertools import count

from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store import facts as records
from proxy.metering.redis_store import keys as key_names
from proxy.metering.tasks import end_task

logger = logging.getLogger(__name__)

DAYS_KEPT = 400
"""As days of their own, so that a month can be compared with that of last year."""

FIELDS_LEFT_ALONE = 1_000
"""Of one hash: so few are no burden, however old they are."""

FIELDS_A_CALL = 200
PAUSE_S = 60.0

FAILING_S = 20.0
"""After the first failure; what has had no turn by then waits for the next time."""

NAMES_LIMIT = 200_000
"""Keys and teams that have their turn on one day; others have it on another."""


class UsageFolding:
    """Sums up the old days of a key and of its team, once a day in which something of theirs is settled.

    Settlements only note whose turn it is; a task does the work, so that no request waits for it.
    """

    def __init__(self, runner: ScriptRunner) -> None:
        """Run the script on ``runner``."""
        self._runner = runner
        self._script = load_script("fold_usage")
        self._call_ids = count(1)
        self._day = 0
        self._noted: set[str] = set()
        self._waiting: list[tuple[str, str]] = []
        self._task: asyncio.Task[None] | None = None

    def settled(self, team: str, key_id: str, admitted_ms: int) -> None:
        """A request of the key that was admitted then has been settled."""
        day = admitted_ms // records.DAY_MS
        if day > self._day:
            self._day = day
            self._noted.clear()
        if key_id in self._noted or len(self._noted) >= NAMES_LIMIT:
            return
        self._waiting.append((team, key_id))
        if team not in self._noted:
            self._waiting.append((team, ""))
        self._noted.update((key_id, team))

    def start(self) -> None:
        """Do the work for as long as the process lives."""
        self._task = asyncio.create_task(self._keep_folding())

    async def stop(self) -> None:
        """Do no more; what is left comes another day."""
        if self._task is not None:
            await end_task(self._task)

    async def _keep_folding(self) -> None:
        while True:
            try:
                await self.fold_waiting()
            except StoreUnavailable:
                logger.debug("usage was not summed up; it will be tried again")
            except Exception:
                logger.exception("usage was not summed up; it will be tried again")
            await asyncio.sleep(PAUSE_S)

    async def fold_waiting(self) -> None:
        """Sum up what settlements have noted. Raises StoreUnavailable where some was not, and forgets nothing then."""
        first_day = records.utc_day((self._day - DAYS_KEPT) * records.DAY_MS)
        waiting, self._waiting = self._waiting, []
        failed: StoreUnavailable | None = None
        time = asyncio.get_running_loop().time
        end = float("inf")
        while waiting and time() < end:
            team, owner = waiting.pop()
            usage = key_names.key_usage(team, owner) if owner else key_names.team_usage(team)
            try:
                # The day that is said in the usage goes for its checkpoint as well, so that comes second.
                await self.fold(usage, "", first_day)
                await self.fold(key_names.key_checkpoint(team, owner), "usage:", first_day)
            except StoreUnavailable as error:
                # What one node of a Cluster does not take holds nothing else up.
                failed, end = error, min(end, time() + FAILING_S)
                self._waiting.append((team, owner))
            except BaseException:
                self._waiting += [*waiting, (team, owner)]
                raise
        self._waiting += waiting
        if failed is not None:
            raise failed

    async def fold(self, name: str, prefix: str, first_day: str) -> None:
        """Sum up the days before ``first_day`` in the hash of this name. Raises StoreUnavailable."""
        cursor = b"0"
        while True:
            arguments = (
                *(f"fold_{next(self._call_ids)}", first_day, prefix, cursor),
                *(FIELDS_LEFT_ALONE, FIELDS_A_CALL),
            )
            (cursor,) = await self._runner.run(self._script, (name,), arguments)
            if cursor == b"0":
                return
