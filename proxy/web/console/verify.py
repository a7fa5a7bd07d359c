"""``GET /admin/v1/ledger/verify``: the books compared with the ledger, and told as events while it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import orjson
from aiohttp import web

from proxy.domain.errors import Conflict, ProxyError
from proxy.domain.money import NO_MONEY
from proxy.metering.accounts.registry import TeamRegistry
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.ledger.pages import LedgerFilter, LedgerPages
from proxy.metering.ledger.verification import Audit, VerificationError
from proxy.web.admin.ledger import KEYS_A_PAGE, books_view, entry_view, user_books_view
from proxy.web.admin.queries import PAGE_LIMIT, StrictQuery, TeamOf, read_query, split_users
from proxy.web.console.events import begin_events
from proxy.web.server.routes import Access, Route, Scope

ENTRIES_A_PAGE = 200
"""Clients of the gateway wait while one page is added up: some milliseconds."""

ENTRIES_LIMIT = 2_000_000
"""Of one team: some 140 MB of memory while it is looked at."""

TELL_EVERY_S = 0.5


class VerifyQuery(StrictQuery):
    """``GET /admin/v1/ledger/verify``."""

    team: TeamOf | None = None


class VerifyRoutes:
    """Handler of the verification."""

    def __init__(self, pages: LedgerPages, books: LedgerBooks, teams: TeamRegistry) -> None:
        """Compare ``books`` of ``teams`` with what ``pages`` add up to."""
        self._teams = teams
        self._pages = pages
        self._books = books
        self._running = asyncio.Lock()

    def routes(self) -> Sequence[Route]:
        """Where the handler stands."""
        return (
            Route(
                *("GET", "/admin/v1/ledger/verify", self.verify, Access.VIEWER, {200: None}),
                query=VerifyQuery,
                errors=(Conflict,),
                media_type="text/event-stream",
                scope=Scope.QUERY,
            ),
        )

    async def verify(self, request: web.Request) -> web.StreamResponse:
        """Rebuild every counter from the ledger, and tell each difference: ``progress`` events, then ``done``.

        It runs for one caller at a time, and ends where that one leaves.
        """
        team = read_query(request, VerifyQuery).team
        if self._running.locked():
            raise Conflict("The books are being verified already: wait until that is done.")
        async with self._running:
            response = await begin_events(request)
            audit, told = Audit(self._read, ledger_page=ENTRIES_A_PAGE, entries_limit=ENTRIES_LIMIT), 0.0
            try:
                async for _ in audit.run(team):
                    # Others of the gateway have their turn between two pages.
                    await asyncio.sleep(0)
                    if monotonic() - told >= TELL_EVERY_S:
                        told = monotonic()
                        so_far = {"team": audit.team, "teams": audit.teams, "entries": audit.entries}
                        await response.write(_event("progress", so_far))
            except (VerificationError, ProxyError) as error:
                message = error.message if isinstance(error, ProxyError) else str(error)
                await response.write(_event("failed", {"message": message}))
            else:
                await response.write(_event("done", audit.report()))
            return response

    async def _read(self, path: str, query: Mapping[str, str | None]) -> dict[str, Any]:
        """What the admin API would answer."""
        if path.startswith("teams/"):
            return {"id": (await self._teams.get(path.removeprefix("teams/"))).id}
        cursor, team = query.get("cursor"), path.removeprefix("ledger/books").removeprefix("/")
        if path == "ledger":
            wanted = LedgerFilter(team=query["team"])
            entries = await self._pages.list_entries(wanted, cursor=cursor, limit=ENTRIES_A_PAGE)
            shown = [entry_view(entry, NO_MONEY) for entry in entries.items]
            return {"data": shown, "next_cursor": entries.next_cursor, "resume_cursor": entries.resume_cursor}
        if path.endswith("/users"):
            team = team.removesuffix("/users")
            return user_books_view(await self._books.read_users(team, split_users(query["of"] or "")), team)
        if not team:
            names = await self._books.teams(cursor=cursor, limit=PAGE_LIMIT)
            return {"data": [{"team": name} for name in names.items], "next_cursor": names.next_cursor}
        limit = min(KEYS_A_PAGE, int(query.get("limit") or KEYS_A_PAGE))
        return books_view(await self._books.read(team, after=cursor or "", limit=limit), team)


def _event(name: str, content: Mapping[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(content) + b"\n\n"
