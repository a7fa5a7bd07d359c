"""The admin API of keys and of teams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time
from typing import Any, Generic

from aiohttp import web
from pydantic import BaseModel

from proxy.domain.api_key import team_of
from proxy.domain.errors import Conflict, InvalidRequest, NotFound
from proxy.domain.limits import KeyRecord, TeamRecord
from proxy.domain.money import NO_MONEY, Money
from proxy.metering.accounts.registry import AccountRegistry, KeyRegistry, Record, TeamRegistry
from proxy.metering.ledger.people_usage import PeopleUsage
from proxy.metering.redis_store.facts import DAY_MS, utc_day
from proxy.web.admin import wire
from proxy.web.admin.access import actor
from proxy.web.admin.bodies import (
    Body,
    CreateKeyBody,
    CreateTeamBody,
    GrantBody,
    RotateBody,
    UpdateKeyBody,
    UpdateTeamBody,
    limits_of,
    milliseconds,
    read_request,
)
from proxy.web.admin.queries import KeysQuery, PeopleQuery, TeamsQuery, UsageQuery, read_query
from proxy.web.admin.roles import ADMINISTRATOR, Role, check_team
from proxy.web.admin.views import charges_view, days_view, key_view, list_response, people_view, team_view, user_view
from proxy.web.intake.request_body import BodyLimits
from proxy.web.public.models import json_response
from proxy.web.server.routes import Access, Route, Scope

READ = Access.VIEWER


@dataclass(frozen=True, slots=True)
class Kind(Generic[Record]):
    """What the API of keys and that of teams differ in: the models of what they take and answer, and how they tell it.

    ``revoking`` is what the description says of ``DELETE``. ``change`` is who may change one, and ``all_of`` how a
    request for all of them says which team it is about.
    """

    name: str
    path: str
    view: Callable[[Record, Money], dict[str, Any]]
    create: type[BaseModel]
    update: type[UpdateTeamBody]
    query: type[BaseModel]
    created: type[BaseModel]
    shown: type[BaseModel]
    page: type[BaseModel]
    granted: type[BaseModel]
    revoking: str
    change: Access
    all_of: Scope


KEY = Kind(
    name="key",
    path="/admin/v1/keys",
    view=key_view,
    create=CreateKeyBody,
    update=UpdateKeyBody,
    query=KeysQuery,
    created=wire.NewKeyView,
    shown=wire.KeyView,
    page=wire.KeyPage,
    granted=wire.GrantedKeyView,
    revoking="Refuse the key from the next request on; its record and its ledger stay.",
    change=Access.TEAM_ADMIN,
    all_of=Scope.QUERY,
)
TEAM = Kind(
    name="team",
    path="/admin/v1/teams",
    view=team_view,
    create=CreateTeamBody,
    update=UpdateTeamBody,
    query=TeamsQuery,
    created=wire.TeamView,
    shown=wire.TeamView,
    page=wire.TeamPage,
    granted=wire.GrantedTeamView,
    revoking="Refuse all of the team's keys from the next request on; its records and its ledger stay.",
    change=Access.ADMIN,
    all_of=Scope.HANDLER,
)


class AccountRoutes(ABC, Generic[Record]):
    """Handlers of the accounts of one kind."""

    def __init__(self, kind: Kind[Record], registry: AccountRegistry[Record], limits: BodyLimits, money: Money) -> None:
        """Read and change accounts through ``registry``; quotas are taken and shown in ``money`` as well."""
        self._kind = kind
        self._money = money
        self._registry = registry
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        kind, all_of_them, one = self._kind, self._kind.path, f"{self._kind.path}/{{id}}"
        used = f"What a {kind.name} has used: per limit, by model and by day."
        topped_up = f"Top up a {kind.name}'s quota, or take back of it."
        change, path = kind.change, Scope.PATH
        return (
            Route(
                *("POST", all_of_them, self.create, change, {201: kind.created}, kind.create),
                errors=(Conflict,),
                scope=Scope.HANDLER,
            ),
            Route("GET", all_of_them, self.page, READ, {200: kind.page}, query=kind.query, scope=kind.all_of),
            Route("GET", one, self.show, READ, {200: kind.shown}, summary=f"One {kind.name}.", scope=path),
            Route("PATCH", one, self.update, change, {200: kind.shown}, kind.update, errors=(Conflict,), scope=path),
            Route("DELETE", one, self.revoke, change, {200: kind.shown}, summary=kind.revoking, scope=path),
            *self.own_routes(),
            Route(
                *("POST", f"{one}/grants", self.grant, change, {201: kind.granted}, GrantBody),
                errors=(Conflict,),
                summary=topped_up,
                scope=path,
            ),
            Route(
                *("GET", f"{one}/usage", self.usage, READ, {200: wire.UsageView}),
                query=UsageQuery,
                summary=used,
                scope=path,
            ),
        )

    def own_routes(self) -> Sequence[Route]:
        """What only this kind has."""
        return ()

    @abstractmethod
    async def create(self, request: web.Request) -> web.Response:
        """Make one."""

    @abstractmethod
    async def page(self, request: web.Request) -> web.Response:
        """A part of the list of all."""

    async def show(self, request: web.Request) -> web.Response:
        """One account."""
        return self._answer(await self._registry.get(request.match_info["id"]))

    async def update(self, request: web.Request) -> web.Response:
        """Change what is given."""
        body = await self._read(request, self._kind.update)
        record = await self._registry.update(request.match_info["id"], body.changes(), by=actor(request))
        return self._answer(record)

    async def revoke(self, request: web.Request) -> web.Response:
        """Refuse it from the next request on."""
        return self._answer(await self._registry.revoke(request.match_info["id"], by=actor(request)))

    async def grant(self, request: web.Request) -> web.Response:
        """Top up a quota, or take back of it."""
        body = await self._read(request, GrantBody)
        record, entry_id = await self._registry.grant(
            request.match_info["id"], quota_units=body.quota_units, reason=body.reason, by=actor(request)
        )
        return self._answer(record, status=201, ledger_entry=entry_id)

    async def usage(self, request: web.Request) -> web.Response:
        """What was used: per limit, by model and by day; and by one end user."""
        account_id, query = request.match_info["id"], read_query(request, UsageQuery)
        view = charges_view(*await self._registry.usage(account_id), self._money)
        if query.days is not None:
            since = utc_day(int(time() * 1_000) - (query.days - 1) * DAY_MS)
            view["by_day"] = days_view(await self._registry.daily_usage(account_id, since), self._money)
        if query.user is not None:
            view["user"] = user_view(await self._registry.user_usage(account_id, query.user), self._money)
        return json_response(view)

    async def _read(self, request: web.Request, body: type[Body]) -> Body:
        return await read_request(request, body, self._limits, money=self._money)

    def _answer(self, record: Record, *, status: int = 200, **more: str) -> web.Response:
        return json_response({**self._kind.view(record, self._money), **more}, status=status)


class KeyAdminRoutes(AccountRoutes[KeyRecord]):
    """Handlers of ``/admin/v1/keys``."""

    def __init__(self, keys: KeyRegistry, teams: TeamRegistry, limits: BodyLimits, money: Money = NO_MONEY) -> None:
        """Read and change ``keys`` of ``teams``."""
        super().__init__(KEY, keys, limits, money)
        self._keys = keys
        self._teams = teams

    def own_routes(self) -> Sequence[Route]:
        """Only keys have a text."""
        return (
            Route(
                *("POST", f"{KEY.path}/{{id}}/rotate", self.rotate, KEY.change, {200: wire.NewKeyView}, RotateBody),
                body_may_be_left_out=True,
                errors=(Conflict,),
                scope=Scope.PATH,
            ),
        )

    async def create(self, request: web.Request) -> web.Response:
        """Make a key; its text is in this answer and nowhere else."""
        body = await self._read(request, CreateKeyBody)
        who = request[ADMINISTRATOR]
        check_team(who, body.team)
        if who.role is Role.TEAM_ADMIN:
            # A new team would have no limits, and is not theirs to make.
            await self._teams.get(body.team)
        expires_ms = milliseconds(body.expires_at)
        if expires_ms is not None and expires_ms <= time() * 1000:
            raise InvalidRequest("'expires_at' should be in the future.", param="expires_at")
        record, text = await self._keys.create(
            body.team, name=body.name, limits=limits_of(body.limits), expires_ms=expires_ms, by=actor(request)
        )
        return self._answer(record, status=201, key=text)

    async def page(self, request: web.Request) -> web.Response:
        """Keys, of one team or of all."""
        query = read_query(request, KeysQuery)
        page = await self._keys.page(query.team, cursor=query.cursor, limit=query.limit, prefix=query.prefix or "")
        return list_response([key_view(record, self._money) for record in page.items], page.next_cursor)

    async def rotate(self, request: web.Request) -> web.Response:
        """A new text for the key; it too is shown only once."""
        body = await read_request(request, RotateBody, self._limits, may_be_left_out=True)
        record, text = await self._keys.rotate(
            request.match_info["id"], overlap_ms=body.overlap_seconds * 1000, by=actor(request)
        )
        return self._answer(record, key=text)


class TeamAdminRoutes(AccountRoutes[TeamRecord]):
    """Handlers of ``/admin/v1/teams``."""

    def __init__(self, teams: TeamRegistry, people: PeopleUsage, limits: BodyLimits, money: Money = NO_MONEY) -> None:
        """Read and change ``teams``, and read what their ``people`` have used."""
        super().__init__(TEAM, teams, limits, money)
        self._teams = teams
        self._people = people

    def own_routes(self) -> Sequence[Route]:
        """Only teams have ledgers."""
        return (
            Route(
                *("GET", f"{TEAM.path}/{{id}}/usage/people", self.people, READ, {200: wire.PeopleUsageView}),
                query=PeopleQuery,
                scope=Scope.PATH,
            ),
        )

    async def create(self, request: web.Request) -> web.Response:
        """Make a team."""
        body = await self._read(request, CreateTeamBody)
        record = await self._teams.create(body.id, name=body.name, limits=limits_of(body.limits), by=actor(request))
        return self._answer(record, status=201)

    async def page(self, request: web.Request) -> web.Response:
        """All teams in the order of their ids; for a team's administrator, its own."""
        query = read_query(request, TeamsQuery)
        who, prefix = request[ADMINISTRATOR], query.prefix or ""
        if who.role is Role.TEAM_ADMIN:
            own = sorted(team for team in who.teams if team.startswith(prefix) and team > (query.cursor or ""))
            page = await self._teams.page_of(own, limit=query.limit)
        else:
            page = await self._teams.page(cursor=query.cursor, limit=query.limit, prefix=prefix)
        return list_response([team_view(record, self._money) for record in page.items], page.next_cursor)

    async def people(self, request: web.Request) -> web.Response:
        """What end users or tags of a team, or of one key, were charged in a UTC day or month."""
        team, query = request.match_info["id"], read_query(request, PeopleQuery)
        await self._teams.get(team)
        if query.key is not None and team_of(query.key) != team:
            raise NotFound(f"There is no key '{query.key}' of the team '{team}'.")
        found = await self._people.read(team, query.window, query.key)
        headings = found.tally.by_user if query.by == "user" else found.tally.by_tag
        asked = {"team": team, "key": query.key, "window": query.window, "by": query.by}
        return json_response(people_view(found, headings, query.limit, self._money, **asked))
