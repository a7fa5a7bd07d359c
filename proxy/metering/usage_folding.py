"""Keeps what is counted by day and by model from growing for ever: days that are long past are summed up."""

from __future__ import annotations

import asyncio
import logging
from itertools import count

from proxy.domain.errors import StoreUnavailable
from proxy.metering import key_names, records
from proxy.metering.script_runner import ScriptRunner
from proxy.metering.scripts import load_script

logger = logging.getLogger(__name__)

DAYS_KEPT = 400
"""As days of their own, so that a month can be compared with that of last year."""

FIELDS_LEFT_ALONE = 1_000
"""Of one hash: so few are no burden, however old they are."""

FIELDS_A_CALL = 200
NAMES_LIMIT = 200_000
"""Keys and teams whose turn today is remembered; past them, some are looked at once more."""


class UsageFolding:
    """Sums up the old days of a key and of its team, once a day, after a settlement of theirs."""

    def __init__(self, runner: ScriptRunner) -> None:
        """Run the script on ``runner``."""
        self._runner = runner
        self._script = load_script("fold_usage")
        self._call_ids = count(1)
        self._day = 0
        self._done: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def settled(self, team: str, key_id: str, admitted_ms: int) -> None:
        """A request of the key that was admitted then has been settled."""
        day = admitted_ms // records.DAY_MS
        if day > self._day or len(self._done) > NAMES_LIMIT:
            self._day = max(day, self._day)
            self._done.clear()
        if key_id in self._done:
            return
        accounts = [(key_names.key_usage(team, key_id), key_id)]
        if team not in self._done:
            accounts.append((key_names.team_usage(team), ""))
        self._done.update((key_id, team))
        task = asyncio.create_task(self._fold(team, accounts))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fold(self, team: str, accounts: list[tuple[str, str]]) -> None:
        first_day = records.utc_day((self._day - DAYS_KEPT) * records.DAY_MS)
        try:
            for usage, owner in accounts:
                # The day that is said in the usage goes for its checkpoint as well, so that comes second.
                await self.fold(usage, "", first_day)
                await self.fold(f"{key_names.checkpoint(team)}:{owner}", "usage:", first_day)
        except StoreUnavailable:
            logger.debug("the usage of %s was not summed up; it will be tried again tomorrow", team)

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
