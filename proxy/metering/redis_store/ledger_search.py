"""Looks for settlements in a ledger: one walk for all that are asked for meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count, islice

from proxy.domain.billing.settlement import Reservation
from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store import keys as key_names
from proxy.metering.store import SettlementTrimmedError

ENTRIES_A_LOOK = 500
REQUESTS_A_WALK = 200


@dataclass(slots=True)
class _Search:
    """One request that somebody asks for; ``found`` is what the walk has met of it so far."""

    reservation: Reservation
    done: asyncio.Future[str]
    found: str = ""


class LedgerSearch:
    """A journal's replay asks for many requests at a time: a walk for each would be records times entries."""

    def __init__(self, runner: ScriptRunner) -> None:
        """Ask ``runner``."""
        self._runner = runner
        self._find_entry = load_script("find_entry")
        self._call_ids = count(1)
        self._waiting: dict[str, dict[str, _Search]] = {}
        self._walks: dict[str, asyncio.Task[None]] = {}

    async def find(self, reservation: Reservation) -> str:
        """``settled ENTRY``, ``expired ENTRY CHARGED``, or ``new`` where the ledger has no entry of it.

        Raises StoreUnavailable, and SettlementTrimmedError where an entry of it may have been trimmed.
        """
        team = reservation.team
        waiting = self._waiting.setdefault(team, {})
        search = waiting.get(reservation.id)
        if search is None:
            search = waiting[reservation.id] = _Search(reservation, asyncio.get_running_loop().create_future())
        walk = self._walks.get(team)
        if walk is None or walk.done():
            self._walks[team] = walk = asyncio.create_task(self._walk_all(team))
            walk.add_done_callback(partial(self._end_walk, team))
        return await asyncio.shield(search.done)

    async def _walk_all(self, team: str) -> None:
        # All that are asked for in this turn of the event loop come along.
        await asyncio.sleep(0)
        while waiting := self._waiting.get(team):
            searches = {each: waiting.pop(each) for each in list(islice(waiting, REQUESTS_A_WALK))}
            error: Exception = StoreUnavailable(may_have_happened=True)
            try:
                await self._walk(team, searches)
            except Exception as caught:
                error = caught
            finally:
                # Also where the walk was cancelled: somebody waits for each of them.
                _fail(searches.values(), error)

    def _end_walk(self, team: str, walk: asyncio.Task[None]) -> None:
        """Also where it was cancelled before its first step."""
        if self._walks[team] is walk:
            del self._walks[team]
            _fail(self._waiting.pop(team, {}).values(), StoreUnavailable(may_have_happened=True))

    async def _walk(self, team: str, searches: dict[str, _Search]) -> None:
        keys = (key_names.ledger(team), key_names.checkpoint(team))
        start = str(min(each.reservation.admitted_ms for each in searches.values()))
        while True:
            verdict, last, trimmed, *found = await self._runner.run(
                self._find_entry, keys, (f"find_{next(self._call_ids)}", start, ENTRIES_A_LOOK, *searches)
            )
            for request, what in zip(found[::2], found[1::2], strict=True):
                search = searches[request.decode()]
                if not search.found.startswith("settled"):
                    search.found = what.decode()
            if verdict != b"more":
                break
            start = f"({last.decode()}"
        trimmed_ms = int(trimmed.partition(b"-")[0] or -1)
        for search in searches.values():
            if search.done.done():
                continue
            if search.found:
                search.done.set_result(search.found)
            elif search.reservation.admitted_ms <= trimmed_ms:
                search.done.set_exception(
                    SettlementTrimmedError(
                        "it is older than the trimmed part of the ledger, which may have held its entry"
                    )
                )
            else:
                search.done.set_result("new")


def _fail(searches: Iterable[_Search], error: Exception) -> None:
    for search in searches:
        if not search.done.done():
            search.done.set_exception(error)
            # Whoever asked may have left: then nobody learns of it.
            search.done.exception()
