"""Trims the ledger where the operator does not want it for ever. Several gateways may do so at once without harm."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from proxy.domain.errors import StoreUnavailable
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.ledger.statements import Statements
from proxy.metering.tasks import end_task

logger = logging.getLogger(__name__)

PAUSE_S = 3600.0
TEAMS_A_PAGE = 1_000
DAY_MS = 86_400_000


class LedgerRetention:
    """A task that trims all ledgers at the start and each hour."""

    def __init__(self, books: LedgerBooks, statements: Statements, *, days: int, shippers: Sequence[str] = ()) -> None:
        """Keep entries of ``days`` days, and those that one of ``shippers`` has not shipped; 0 keeps them for ever.

        What is trimmed has been counted in its team's statement before.
        """
        self._books = books
        self._statements = statements
        self._days = days
        self._shippers = shippers
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Trim for as long as the process lives."""
        if self._days:
            self._task = asyncio.create_task(self._keep_trimming())

    async def stop(self) -> None:
        """Trim no more."""
        if self._task is not None:
            await end_task(self._task)

    async def _keep_trimming(self) -> None:
        while True:
            for part in self._books.team_parts:
                # What cannot be reached of a Cluster holds nothing else up.
                try:
                    await self._trim_part(part)
                except StoreUnavailable:
                    logger.warning("some ledgers could not be trimmed; it will be tried again in an hour")
                except Exception:
                    logger.exception("some ledgers could not be trimmed; it will be tried again in an hour")
            await asyncio.sleep(PAUSE_S)

    async def _count(self, team: str) -> bool:
        """Whether a statement has what is about to be trimmed; one team that cannot be counted stops no other."""
        try:
            # An hour more than is trimmed now: a month is stated while all of its entries are there.
            await self._statements.advance(team, age_ms=self._days * DAY_MS - int(PAUSE_S * 1_000))
        except StoreUnavailable:
            raise
        except Exception:
            logger.exception("the statements of %s could not be counted, so its ledger is not trimmed", team)
            return False
        return True

    async def _trim_part(self, part: str) -> None:
        cursor = None
        waiting = 0
        while True:
            page = await self._books.teams_of(part, cursor=cursor, limit=TEAMS_A_PAGE)
            for team in page.items:
                if not await self._count(team):
                    continue
                trimmed = await self._books.trim(team, keep_ms=self._days * DAY_MS, shippers=self._shippers)
                if trimmed.entries:
                    logger.info("the ledger of %s: %d entries went into its checkpoint", team, trimmed.entries)
                waiting += trimmed.waits
            cursor = page.next_cursor
            if cursor is None:
                break
        if waiting:
            logger.warning(
                "the ledgers of %d teams have entries older than %d days that have not been shipped by %s: they stay "
                "until they are",
                waiting,
                self._days,
                " and ".join(self._shippers),
            )
