"""Reclaims what expired leases hold, in steps that no other call of the store waits long for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from itertools import count
from typing import Any

from proxy.metering.redis.connection import Argument
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store import keys as key_names
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

STEPS_LIMIT = 10_000
"""Calls in one go: more steps than a million leases take, should they go on running out all the time."""


class Reclaiming:
    """One walk at a time over the leases of a team, however many ask for it.

    Who asks while one is under way waits for the next one: the one under way may have looked too early.
    """

    def __init__(self, runner: ScriptRunner, metrics: Metrics, *, remember_ms: int) -> None:
        """Run the script on ``runner``; the end of a reservation is remembered for ``remember_ms`` milliseconds."""
        self._runner = runner
        self._metrics = metrics
        self._remember_ms = remember_ms
        self._script = load_script("reclaim")
        self._call_ids = count(1)
        self._walks: dict[str, asyncio.Task[int]] = {}
        self._next: dict[str, asyncio.Task[int]] = {}

    async def reclaim(self, team: str) -> int:
        """Reclaim all that has expired; the store's time at the end, in microseconds. Raises StoreUnavailable."""
        return await asyncio.shield(self._next.get(team) or self._begin(team))

    def reclaim_soon(self, team: str) -> None:
        """The same without waiting for it; where one is under way already, that will do."""
        if team not in self._walks and team not in self._next:
            self._begin(team)

    def _begin(self, team: str) -> asyncio.Task[int]:
        walk = self._next[team] = asyncio.create_task(self._walk_after(self._walks.get(team), team))
        walk.add_done_callback(_read_outcome)
        return walk

    def _count(self, leases: int) -> None:
        if leases:
            logger.warning("%d leases of a gateway that is gone had expired, and were reclaimed", leases)
            self._metrics.expired(leases)

    async def _walk_after(self, before: asyncio.Task[int] | None, team: str) -> int:
        if before is not None:
            await asyncio.wait((before,))
        walk = self._walks[team] = self._next.pop(team)
        try:
            return await self._walk(team)
        finally:
            if self._walks.get(team) is walk:
                del self._walks[team]

    async def _walk(self, team: str) -> int:
        expired = 0
        reservations: Sequence[bytes] = ()
        owners: Sequence[bytes] = ()
        users: Sequence[bytes] = ()
        try:
            for _ in range(STEPS_LIMIT):
                taken, now_us, reservations, others, people = await self._step(team, reservations, owners, users)
                expired += taken
                owners, users = others or owners, people or users
                if not reservations:
                    break
        finally:
            self._count(expired)
        return int(now_us)

    async def _step(
        self, team: str, reservations: Sequence[bytes], owners: Sequence[bytes], users: Sequence[bytes]
    ) -> list[Any]:
        """One call: the reply of ``reclaim.lua``."""
        ids, key_ids = [each.decode() for each in reservations], [each.decode() for each in owners]
        keys = [key_names.leases(team), key_names.ledger(team), key_names.team_record(team), key_names.team_usage(team)]
        keys += [key_names.reservation(team, each) for each in ids]
        for key_id in key_ids:
            keys += [key_names.key_record(team, key_id), key_names.key_usage(team, key_id)]
        people = [each.decode() for each in users]
        for each in people:
            key_id, _, user = each.partition(" ")
            keys += [key_names.used_by_user(team, key_id, user), key_names.used_by_user(team, "", user)]
        arguments: tuple[Argument, ...] = (
            f"reclaim_{next(self._call_ids)}",
            self._remember_ms,
            len(ids),
            len(key_ids),
            *ids,
            *key_ids,
            *people,
        )
        return await self._runner.run(self._script, keys, arguments)


def _read_outcome(walk: asyncio.Task[int]) -> None:
    """Those who asked may all have gone; asyncio complains of an error that nobody has read."""
    if not walk.cancelled():
        walk.exception()
