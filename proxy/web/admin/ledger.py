"""The admin API of the ledger: its entries, refunds, and what ``lightmeter ledger verify`` compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from aiohttp import web

from proxy.domain.api_key import is_team_id, team_of
from proxy.domain.billing.settlement import LedgerEntry
from proxy.domain.errors import Conflict, InvalidRequest, NotFound
from proxy.domain.money import NO_MONEY, Money
from proxy.metering.ledger.books import BooksPage as KeysPage
from proxy.metering.ledger.books import KeyBooks, LedgerBooks, UsersPage
from proxy.metering.ledger.pages import LedgerFilter, LedgerPages
from proxy.metering.ledger.walk import Span
from proxy.metering.redis_store.facts import DAY_LENGTH, DAY_MS, MONTH_LENGTH, utc_day
from proxy.web.admin.access import actor
from proxy.web.admin.bodies import RefundBody, read_request
from proxy.web.admin.queries import (
    BookTeamsQuery,
    LedgerQuery,
    PageQuery,
    UserBooksQuery,
    read_query,
    since_ms,
    split_entry_id,
    split_users,
)
from proxy.web.admin.views import list_response, stream_response
from proxy.web.admin.wire import BooksPage, EntryPage, MoneyView, RefundView, TeamNames, UserBooksPage
from proxy.web.intake.request_body import BodyLimits
from proxy.web.public.models import json_response
from proxy.web.server.routes import Access, Route, Scope
from proxy.web.times import iso_time

KEYS_A_PAGE = 50
"""Read at one moment: no other call of the store may wait long for it."""


class LedgerRoutes:
    """Handlers of ``/admin/v1/ledger``."""

    def __init__(self, pages: LedgerPages, books: LedgerBooks, limits: BodyLimits, money: Money = NO_MONEY) -> None:
        """Read entries from ``pages``, correct and compare through ``books``; charges are in ``money`` as well."""
        self._money = money
        self._pages = pages
        self._books = books
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        books, team = "/admin/v1/ledger/books", "/admin/v1/ledger/books/{team}"
        refund, read = "/admin/v1/ledger/{entry}/refund", Access.VIEWER
        return (
            Route(
                *("GET", "/admin/v1/ledger", self.list_entries, read, {200: EntryPage}),
                query=LedgerQuery,
                scope=Scope.QUERY,
            ),
            Route("POST", refund, self.refund, Access.ADMIN, {201: RefundView}, RefundBody, errors=(Conflict,)),
            Route("GET", "/admin/v1/money", self.show_money, read, {200: MoneyView}, scope=Scope.ANYBODY),
            Route("GET", books, self.list_teams, read, {200: TeamNames}, query=BookTeamsQuery),
            Route("GET", team, self.read_books, read, {200: BooksPage}, query=PageQuery, scope=Scope.PATH),
            Route(
                *("GET", f"{team}/users", self.read_users, read, {200: UserBooksPage}),
                query=UserBooksQuery,
                scope=Scope.PATH,
            ),
        )

    async def list_entries(self, request: web.Request) -> web.Response:
        """Ledger entries: of one team oldest first, or newest first; of all team by team, each oldest first."""
        query = read_query(request, LedgerQuery)
        team = query.team
        if query.key is not None:
            key_team = team_of(query.key)
            if team not in (None, key_team):
                raise InvalidRequest("'key' should be a key's id, of the team that 'team' names.", param="key")
            team = key_team
        newest_first = query.order == "newest"
        if newest_first and team is None:
            raise InvalidRequest("'order' should be 'oldest' where neither 'team' nor 'key' is given.", param="order")
        span = Span(since_ms(query.since), since_ms(query.until), newest_first=newest_first)
        wanted = LedgerFilter(team, query.key, query.outcome, query.request, span, query.user, query.tag)
        page = await self._pages.list_entries(wanted, cursor=query.cursor, limit=query.limit)
        return stream_response([entry_view(entry, self._money) for entry in page.items], page)

    async def show_money(self, _request: web.Request) -> web.Response:
        """What a US dollar is in quota units, where that is set."""
        units = self._money.units_per_usd
        return json_response({"units_per_usd": None if units is None else f"{units:f}"})

    async def refund(self, request: web.Request) -> web.Response:
        """Reverse an entry, once."""
        body = await read_request(request, RefundBody, self._limits)
        team, stream_id = split_entry_id(request.match_info["entry"])
        refund = await self._books.refund(team, stream_id, reason=body.reason, by=actor(request))
        return json_response({"ledger_entry": refund, "refunds": request.match_info["entry"]}, status=201)

    async def list_teams(self, request: web.Request) -> web.Response:
        """Teams that have books, in the order of their ids."""
        query = read_query(request, BookTeamsQuery)
        page = await self._books.teams(cursor=query.cursor, limit=query.limit)
        return list_response([{"team": team} for team in page.items], page.next_cursor)

    async def read_books(self, request: web.Request) -> web.Response:
        """Counters of a team's keys, and what they should add up to beside the ledger; each page at one moment."""
        team, query = request.match_info["team"], read_query(request, PageQuery)
        if not is_team_id(team):
            raise NotFound(f"There is no team '{team[:100]}'.")
        limit = min(KEYS_A_PAGE, query.limit)
        page = await self._books.read(team, after=query.cursor or "", limit=limit)
        return json_response(books_view(page, team))

    async def read_users(self, request: web.Request) -> web.Response:
        """Counters of end users of a team's keys and of the team, where each user has limits; all at one moment."""
        team, query = request.match_info["team"], read_query(request, UserBooksQuery)
        if not is_team_id(team):
            raise NotFound(f"There is no team '{team[:100]}'.")
        return json_response(user_books_view(await self._books.read_users(team, split_users(query.of)), team))


def user_books_view(page: UsersPage, team: str) -> dict[str, Any]:
    """Counters of end users."""
    return {
        "data": [None if each is None else asdict(each) for each in page.users],
        "as_of": f"{team}_{page.as_of}",
        "leases": page.leases,
        "today": utc_day(page.now_ms),
    }


def books_view(page: KeysPage, team: str) -> dict[str, Any]:
    """A page of a team's books."""
    return {
        "data": [_view(key, team) for key in page.keys],
        "as_of": f"{team}_{page.as_of}",
        "trimmed": f"{team}_{page.trimmed}",
        "stray_leases": page.stray_leases,
        "next_cursor": page.next_cursor,
    }


def _view(key: KeyBooks, team: str) -> dict[str, Any]:
    """One key's books, or under the team's own id those of all its keys together."""
    return {
        "id": key.id or team,
        "quota_units": int(key.record["quota_units"]) if "quota_units" in key.record else None,
        "counters": {name: int(key.record.get(name, 0)) for name in _COUNTERS},
        "windows": _windows(key.record),
        "usage_from": key.usage_from,
        "usage": {name: int(value) for name, value in key.usage.items()},
        "checkpoint": {name: int(value) for name, value in key.checkpoint.items()},
        "held": None
        if key.held_reservations is None
        else {"reservations": key.held_reservations, "quota_units": key.held_units},
    }


def _windows(record: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """The day and the month of the last admission, each with what counts in it."""
    return {
        utc_day(int(record[field]) * DAY_MS)[:length]: {
            "posted": int(record.get(f"{field}_posted", 0)),
            "reserved": int(record.get(f"{field}_reserved", 0)),
        }
        for field, length in (("day", DAY_LENGTH), ("month", MONTH_LENGTH))
        if int(record.get(field, 0))
    }


_COUNTERS = ("posted", "overage", "images", "granted", "reserved", "held")


def entry_view(entry: LedgerEntry, money: Money) -> dict[str, Any]:
    """A ledger entry."""
    facts = money.beside(entry.facts, "reserved", "charged", "overage", "quota_units")
    return {"id": entry.id, "at": iso_time(entry.at_ms), "kind": entry.kind, "team": entry.team, **facts}
