"""The quota of teams for Prometheus, read from the store now and then; neither requests nor scrapes wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from proxy.domain.errors import NotFound, StoreUnavailable
from proxy.domain.limits import QuotaUsage
from proxy.metering.accounts.registry import TeamRegistry
from proxy.metering.tasks import end_task
from proxy.telemetry.team_metrics import TeamMetrics

logger = logging.getLogger(__name__)

FIRST_READING_S = 2.0
"""How long the start may wait: whom the first requests are counted for is known only then."""

PAGE = 100
"""Teams in one part of the list."""

PAGES_A_READING = 10
"""Parts of the list that are looked at in one reading, at the most."""


class TeamFigures:
    """A task that shows the quota of the first teams by id, as it was at most ``refresh_s`` seconds ago."""

    def __init__(self, registry: TeamRegistry, metrics: TeamMetrics, *, refresh_s: float) -> None:
        """Read from ``registry``, show in ``metrics``, which says how many teams."""
        self._registry = registry
        self._metrics = metrics
        self._refresh_s = refresh_s
        self._task: asyncio.Task[None] | None = None
        self._cursor: str | None = None
        self._found: dict[str, Mapping[str, QuotaUsage]] = {}
        self._shown: dict[str, Mapping[str, QuotaUsage]] = {}

    async def start(self) -> None:
        """Show them for as long as the process lives, and wait a little for the first time."""
        first = asyncio.Event()
        self._task = asyncio.create_task(self._keep_showing(first))
        try:
            async with asyncio.timeout(FIRST_READING_S):
                await first.wait()
        except TimeoutError:
            logger.warning("the quota of teams could not be read in time; until it is, all of them count as 'other'")

    async def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            await end_task(self._task)

    async def _keep_showing(self, first: asyncio.Event) -> None:
        while True:
            try:
                self._metrics.show(await self.read())
            except StoreUnavailable:
                # The last figures stay; lightmeter_store_up says that they are old.
                logger.debug("the quota of teams could not be read")
            except Exception:
                logger.exception("the quota of teams could not be read")
            first.set()
            await asyncio.sleep(self._refresh_s)

    async def read(self) -> Mapping[str, Mapping[str, QuotaUsage]]:
        """The quotas of the first teams by name; those that are revoked take nobody's place.

        Where very many have been revoked, the first ones are not found in one reading. Until they are, those that were
        found before are read again; so they are where a node of a Cluster is away, and its teams stay as they were.
        Raises StoreUnavailable where none can be read.
        """
        try:
            found = await self._read_first()
        except StoreUnavailable:
            if not self._shown:
                raise
            found = None
        return await self._read_again() if found is None else found

    async def _read_first(self) -> Mapping[str, Mapping[str, QuotaUsage]] | None:
        for _ in range(PAGES_A_READING):
            page = await self._registry.page(cursor=self._cursor, limit=min(PAGE, self._metrics.label_teams))
            self._found |= {team.id: team.quotas for team in page.items if team.revoked_ms is None}
            self._cursor = page.next_cursor
            if self._cursor is None or len(self._found) >= self._metrics.label_teams:
                self._shown, self._found, self._cursor = self._found, {}, None
                return self._shown
        return None

    async def _read_again(self) -> Mapping[str, Mapping[str, QuotaUsage]]:
        names = list(self._shown)
        found = await asyncio.gather(*map(self._registry.get, names), return_exceptions=True)
        again = {}
        for name, team in zip(names, found, strict=True):
            if isinstance(team, StoreUnavailable):
                again[name] = self._shown[name]
            elif isinstance(team, BaseException):
                if not isinstance(team, NotFound):
                    raise team
            elif team.revoked_ms is None:
                again[name] = team.quotas
        if found and all(isinstance(team, StoreUnavailable) for team in found):
            raise StoreUnavailable
        return again
