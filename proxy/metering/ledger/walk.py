"""Reading a stream that each team has, page by page: whatever is written between two pages is seen exactly once.

One team's stream is read on from an entry's id: what comes later has a later one (newest first, what comes later is not
in the list). Over all teams that is not enough: a
team that was passed gets entries as well. There a walk has an end, a moment by the store's clock that is past. It sees
the entries up to then, team by team; and the next walk, which begins where this one has its end, sees those since.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

from proxy.domain.api_key import TEAM_ID_PATTERN
from proxy.domain.errors import InvalidRequest
from proxy.metering.pages import Page
from proxy.metering.redis.pool import StoreReads, ask, ask_all, earliest_time_ms
from proxy.metering.redis_store.team_index import TeamIndex

T = TypeVar("T")

Convert = Callable[[str, str, Mapping[bytes, bytes]], T | None]
"""What a page has of a team's entry, given the team, the entry's id and its fields; None for one not asked for."""

STREAM_ID_PATTERN = r"[0-9]{1,19}-[0-9]{1,19}"
ENTRY_ID_PATTERN = rf"{TEAM_ID_PATTERN}_{STREAM_ID_PATTERN}"
WALK_PATTERN = rf"[0-9]{{1,15}}\.(?:[0-9]{{1,15}}\.(?:{TEAM_ID_PATTERN})?\.(?:{STREAM_ID_PATTERN})?)?"
"""A cursor over all teams: where the walk begins and ends, both in milliseconds, the team, and the entry there."""

ENTRIES_LIMIT = 1_000
"""Entries that one page looks at, at the most, however few of them are asked for."""

TEAMS_LIMIT = 100
"""Teams that one page looks at, at the most, however few of them have anything."""

CLOCK_STEP_S = 0.002
"""After so long, whatever is written has a later millisecond."""

_walk = re.compile(WALK_PATTERN)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a walk over all teams is: after ``team``, or in it after ``entry``; no ``end_ms`` before its first page."""

    begin_ms: int
    end_ms: int | None = None
    team: str = ""
    entry: str = ""

    @classmethod
    def read(cls, cursor: str) -> Self:
        """The place that a cursor names. Raises InvalidRequest."""
        if not _walk.fullmatch(cursor):
            raise InvalidRequest(
                "'cursor' should be the next_cursor or the resume_cursor of a list of all teams; "
                "one that is an entry's id goes with 'team'.",
                param="cursor",
            )
        begin, end, team, entry = (*cursor.split("."), "", "")[:4]
        return cls(int(begin), int(end) if end else None, team, entry)

    def __str__(self) -> str:
        """The cursor."""
        return f"{self.begin_ms}." if self.end_ms is None else f"{self.begin_ms}.{self.end_ms}.{self.team}.{self.entry}"


@dataclass(frozen=True, slots=True)
class Span:
    """From when on, and before when; both in milliseconds since the epoch, None is no bound.

    ``newest_first`` turns the order around. Only one team's stream can be read so: of all teams there is no order.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    newest_first: bool = False


WHOLE = Span()
"""Everything, from the oldest to the newest."""


@dataclass(frozen=True, slots=True)
class StreamPage(Page[T]):
    """A page; at the end of the list, where a later look begins for what has come since."""

    resume_cursor: str | None


class StreamWalk(Generic[T]):
    """Entries of one team or of all, each team's from the oldest to the newest."""

    def __init__(
        self,
        redis: StoreReads,
        name_of: Callable[[str], str],
        prepare: Callable[[Sequence[str]], Awaitable[object]] | None = None,
    ) -> None:
        """``name_of`` is a team's stream; ``prepare`` is called with the teams of a page, before it is read."""
        self._redis = redis
        self._index = TeamIndex(redis)
        self._name_of = name_of
        self._prepare = prepare

    async def read(
        self,
        team: str | None,
        span: Span,
        *,
        cursor: str | None,
        limit: int,
        convert: Convert[T],
    ) -> StreamPage[T]:
        """Up to ``limit`` of what ``convert`` makes of a team's entries within ``span``.

        Raises InvalidRequest for a cursor of another list, and StoreUnavailable.
        """
        page = _Filling(limit, convert)
        if team is None:
            return await self._read_all(page, Place.read(cursor) if cursor else Place(0), span)
        after_team, _, after = (cursor or "").rpartition("_")
        if cursor and after_team != team:
            raise InvalidRequest(f"'cursor' should be of the team '{team}': an entry's id.", param="cursor")
        if self._prepare is not None:
            await self._prepare([team])
        first = str(span.since_ms or "-")
        # A moment alone names its last entry where a range ends.
        last = "+" if span.until_ms is None else str(max(0, span.until_ms - 1))
        if after and span.newest_first:
            # Nothing is before the least id there is, and Redis refuses to be asked for that.
            last = f"({after}" if after.strip("0-") else "0"
        elif after:
            first = f"({after}"
        async for entry, fields in self._entries(team, first, last, limit, newest_first=span.newest_first):
            after = entry
            if page.is_full_after(team, entry, fields):
                return StreamPage(page.found, f"{team}_{entry}", None)
        return StreamPage(page.found, None, f"{team}_{after}" if after and not span.newest_first else None)

    async def _read_all(self, page: _Filling[T], at: Place, span: Span) -> StreamPage[T]:
        names = await self._teams(at)
        if self._prepare is not None:
            await self._prepare(names[:TEAMS_LIMIT])
        begin_ms, end_ms = max(at.begin_ms, span.since_ms or 0), at.end_ms
        if end_ms is None:
            end_ms = await self._moment_that_is_past()
            if span.until_ms is not None:
                end_ms = max(0, min(end_ms, span.until_ms - 1))
            # A team that was made before the end belongs into this walk.
            names = await self._teams(at)
        teams = names[:TEAMS_LIMIT]
        walk = Place(begin_ms, end_ms)
        starts = [f"({at.entry}" if at.entry and team == at.team else str(begin_ms) for team in teams]
        firsts = await ask_all(
            self._redis,
            [
                ("XRANGE", self._name_of(team), start, end_ms, "COUNT", 1)
                for team, start in zip(teams, starts, strict=True)
            ],
        )
        for team, start, first in zip(teams, starts, firsts, strict=True):
            if not first:
                continue
            async for entry, fields in self._entries(team, start, str(end_ms), page.limit):
                if page.is_full_after(team, entry, fields):
                    return StreamPage(page.found, str(replace(walk, team=team, entry=entry)), None)
        if len(names) > TEAMS_LIMIT:
            return StreamPage(page.found, str(replace(walk, team=teams[-1])), None)
        return StreamPage(page.found, None, str(Place(end_ms + 1)))

    async def _teams(self, at: Place) -> list[str]:
        return await self._index.after(at.team, inclusive=bool(at.entry), count=TEAMS_LIMIT + 1)

    async def _moment_that_is_past(self) -> int:
        """A millisecond of the store's clock in which nothing is written any more."""
        now_ms = await earliest_time_ms(self._redis)
        await asyncio.sleep(CLOCK_STEP_S)
        return now_ms

    async def _entries(
        self, team: str, start: str, end: str, batch_size: int, *, newest_first: bool = False
    ) -> AsyncIterator[tuple[str, Mapping[bytes, bytes]]]:
        name = self._name_of(team)
        while True:
            asked = ("XREVRANGE", name, end, start) if newest_first else ("XRANGE", name, start, end)
            batch: list[Any] = await ask(self._redis, *asked, "COUNT", batch_size)
            for stream_id, fields in batch:
                yield stream_id.decode(), fields
            if len(batch) < batch_size:
                return
            passed = f"({batch[-1][0].decode()}"
            start, end = (start, passed) if newest_first else (passed, end)


class _Filling(Generic[T]):
    """A page that is being filled."""

    def __init__(self, limit: int, convert: Convert[T]) -> None:
        self.limit = limit
        self.found: list[T] = []
        self._convert = convert
        self._looked_at = 0

    def is_full_after(self, team: str, entry: str, fields: Mapping[bytes, bytes]) -> bool:
        """Take an entry in, if it is asked for; whether the page ends with it."""
        self._looked_at += 1
        item = self._convert(team, entry, fields)
        if item is not None:
            self.found.append(item)
        return len(self.found) == self.limit or self._looked_at == ENTRIES_LIMIT
