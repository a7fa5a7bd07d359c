"""The admin API of statements: what a team's ledger adds up to by month, as JSON, a page or CSV."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from proxy.domain.billing.statements import NO_ENTRY, Statement, largest
from proxy.domain.errors import NotFound
from proxy.domain.money import Money
from proxy.metering.accounts.registry import TeamRegistry
from proxy.metering.ledger.statements import Stated, Statements
from proxy.web.admin.queries import StatementQuery, read_query
from proxy.web.admin.statement_pages import LISTED, PAGE_POLICY, as_csv, as_page
from proxy.web.admin.views import list_response
from proxy.web.admin.wire import StatementPage, StatementView
from proxy.web.public.models import json_response
from proxy.web.server.routes import Access, Route, Scope
from proxy.web.times import iso_time

MONTH_PATTERN = r"[0-9]{4}-(?:0[1-9]|1[0-2])"
_month = re.compile(MONTH_PATTERN)

TOTALS = ("requests", "images", "charged", "refunded", "overage", "granted")
HEADINGS = ("by_model", "by_key", "by_user", "by_tag")
IN_USD = ("charged", "refunded", "quota_units", "overage", "granted")


class StatementRoutes:
    """Handlers of ``/admin/v1/teams/{id}/statements``."""

    def __init__(self, statements: Statements, teams: TeamRegistry) -> None:
        """Read ``statements`` of ``teams``."""
        self._statements = statements
        self._teams = teams

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        every, read, path = "/admin/v1/teams/{id}/statements", Access.VIEWER, Scope.PATH
        one = f"{every}/{{month}}"
        page, csv = f"{one}/page", f"{one}/csv"
        query = StatementQuery
        return (
            Route("GET", every, self.list_all, read, {200: StatementPage}, query=query, scope=path),
            Route("GET", one, self.show, read, {200: StatementView}, query=query, scope=path),
            Route("GET", page, self.show_page, read, {200: None}, query=query, media_type="text/html", scope=path),
            Route("GET", csv, self.show_csv, read, {200: None}, query=query, media_type="text/csv", scope=path),
        )

    async def list_all(self, request: web.Request) -> web.Response:
        """A team's statements, from the first to the one that is open, with the 100 largest headings unless ``top``."""
        team, top = await self._asked(request, LISTED)
        stated = await self._statements.list_all(team)
        # A team may have very many keys, and meanwhile others have their turn.
        return list_response([await asyncio.to_thread(statement_view, each, top) for each in stated], None)

    async def show(self, request: web.Request) -> web.Response:
        """The statement of a month, fixed once it has ended; that of this month as far as it has come."""
        return json_response(await self._read(request))

    async def show_page(self, request: web.Request) -> web.Response:
        """The same as a page that prints well, with the 100 largest headings unless ``top``."""
        page = as_page(await self._read(request, LISTED))
        headers = {"Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff"}
        return web.Response(text=page, content_type="text/html", charset="utf-8", headers=headers)

    async def show_csv(self, request: web.Request) -> web.Response:
        """The same as CSV."""
        view = await self._read(request)
        name = f"statement-{view['team']}-{view['month']}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
        text = await asyncio.to_thread(as_csv, view)
        return web.Response(text=text, content_type="text/csv", charset="utf-8", headers=headers)

    async def _read(self, request: web.Request, top: int | None = None) -> dict[str, Any]:
        (team, top), month = await self._asked(request, top), request.match_info["month"]
        if not _month.fullmatch(month):
            raise NotFound(f"'{month[:20]}' is no month: write it like 2026-11.")
        return await asyncio.to_thread(statement_view, await self._statements.read(team, month), top)

    async def _asked(self, request: web.Request, top: int | None) -> tuple[str, int | None]:
        """The team, and how many headings of each kind: ``top`` where the query does not say, None for all."""
        query, team = read_query(request, StatementQuery), request.match_info["id"]
        await self._teams.get(team)
        return team, top if query.top is None else query.top


def statement_view(stated: Stated, top: int | None = None) -> dict[str, Any]:
    """A statement, with US dollars beside its units at what a unit was worth when it was stated.

    ``top`` is how many headings of each kind are told, the others as one; None tells all.
    """
    statement, money = stated.statement, stated.money
    headings: dict[str, Mapping[str, Mapping[str, int]]] = {}
    omitted: dict[str, int] = {}
    for name in HEADINGS:
        every = getattr(statement, name)
        headings[name], omitted[name] = (every, 0) if top is None else largest(every, top)
    sums = {name: statement.figures.get(name, 0) for name in TOTALS} | {"quota_units": statement.quota_units}
    worth = money.units_per_usd
    return {
        "team": stated.team,
        "month": statement.month,
        "state": "open" if stated.stated_ms is None else "stated",
        "stated_at": iso_time(stated.stated_ms),
        "ledger": {"after": _entry(stated.team, statement.after), "to": _entry(stated.team, statement.to)},
        "entries": statement.entries,
        **money.beside(sums, *IN_USD),
        **{name: _by(each, money) for name, each in headings.items()},
        "headings_omitted": omitted,
        "late": _by(statement.late, money),
        "late_entries": statement.late_entries,
        "late_entries_omitted": _late(statement) - len(statement.late_entries),
        "brought_forward": money.beside(statement.brought_forward, "quota_units", "overage")
        if statement.brought_forward
        else None,
        "units_per_usd": None if worth is None else f"{worth:f}",
    }


def _by(headings: Mapping[str, Mapping[str, int]], money: Money) -> dict[str, dict[str, Any]]:
    return {name: money.beside(sums, "quota_units") for name, sums in sorted(headings.items())}


def _late(statement: Statement) -> int:
    return sum(sums["entries"] for sums in statement.late.values())


def _entry(team: str, stream_id: str) -> str | None:
    return None if stream_id == NO_ENTRY else f"{team}_{stream_id}"
