"""The leases that this process holds: all of them renewed together, a few times within the length of one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator

from proxy.domain.errors import StoreUnavailable
from proxy.metering.store import Store

logger = logging.getLogger(__name__)

RENEWALS_A_LEASE = 3
RETRY_S = 0.5
BATCH = 500
"""Leases in one call of a script, which no other call may wait long for."""


class Leases:
    """Reservations whose requests are under way, or whose settlement the store has not taken yet."""

    def __init__(self, store: Store, *, lease_ms: int) -> None:
        """Renew in ``store``, which gives a lease ``lease_ms`` milliseconds."""
        self._store = store
        self._pause_s = lease_ms / 1000 / RENEWALS_A_LEASE
        self._teams: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many are held."""
        return len(self._teams)

    def hold(self, reservation_id: str, team: str) -> None:
        """Renew this one from now on."""
        self._teams[reservation_id] = team

    def drop(self, reservation_id: str) -> None:
        """It has been settled, or reclaimed."""
        self._teams.pop(reservation_id, None)

    def start(self) -> None:
        """Renew for as long as the process lives, and first of all whenever the store can be reached again."""
        self._store.on_connected(self._renew_first)
        self._task = asyncio.create_task(self._keep_renewing())

    async def stop(self) -> None:
        """Let the leases of what is still held expire, unless somebody settles it before."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def renew(self) -> None:
        """Renew all that are held, in one write. Raises StoreUnavailable where the store did not take some."""
        results = await asyncio.gather(
            *(self._store.renew(team, ids) for team, ids in self._batches()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _renew_first(self) -> None:
        """Before anybody's admission finds that they have expired while the store was away."""
        for team, ids in self._batches():
            self._store.renew_soon(team, ids)

    def _batches(self) -> Iterator[tuple[str, list[str]]]:
        by_team: dict[str, list[str]] = defaultdict(list)
        for reservation_id, team in self._teams.items():
            by_team[team].append(reservation_id)
        for team, ids in by_team.items():
            for start in range(0, len(ids), BATCH):
                yield team, ids[start : start + BATCH]

    async def _keep_renewing(self) -> None:
        pause_s = self._pause_s
        while True:
            await asyncio.sleep(pause_s)
            pause_s = self._pause_s
            try:
                # What a node of a Cluster holds up is still under way, and holds up no other team's leases.
                async with asyncio.timeout(self._pause_s):
                    await self.renew()
            except (StoreUnavailable, TimeoutError):
                pause_s = min(RETRY_S, self._pause_s)
            except Exception:
                # Without renewals every long request would be written off; whatever it was, try again.
                logger.exception("leases could not be renewed")
