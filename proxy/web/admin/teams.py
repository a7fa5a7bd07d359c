"""The admin API of teams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from aiohttp import web

from proxy.domain.errors import Conflict
from proxy.domain.limits import TeamRecord
from proxy.metering.accounts.teams import TeamRegistry
from proxy.web.admin.access import actor
from proxy.web.admin.bodies import CreateTeamBody, GrantBody, UpdateTeamBody, limits_of
from proxy.web.admin.keys import charges_view, list_response, read_request
from proxy.web.admin.queries import TeamsQuery, read_query
from proxy.web.admin.wire import GrantedTeamView, TeamPage, TeamView, UsageView
from proxy.web.intake.request_body import BodyLimits
from proxy.web.public.key import usage_view
from proxy.web.public.models import json_response
from proxy.web.server.routes import Access, Route
from proxy.web.times import iso_time


class TeamRoutes:
    """Handlers of ``/admin/v1/teams``."""

    def __init__(self, registry: TeamRegistry, limits: BodyLimits) -> None:
        """Change and read teams through ``registry``."""
        self._registry = registry
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        teams, team = "/admin/v1/teams", "/admin/v1/teams/{id}"
        read, change = Access.VIEWER, Access.ADMIN
        return (
            Route("POST", teams, self.create, change, {201: TeamView}, CreateTeamBody, errors=(Conflict,)),
            Route("GET", teams, self.list, read, {200: TeamPage}, query=TeamsQuery),
            Route("GET", team, self.show, read, {200: TeamView}),
            Route("PATCH", team, self.update, change, {200: TeamView}, UpdateTeamBody, errors=(Conflict,)),
            Route("DELETE", team, self.delete, change, {200: TeamView}),
            Route("POST", f"{team}/grants", self.grant, change, {201: GrantedTeamView}, GrantBody, errors=(Conflict,)),
            Route("GET", f"{team}/usage", self.usage, read, {200: UsageView}),
        )

    async def create(self, request: web.Request) -> web.Response:
        """Make a team."""
        body = await read_request(request, CreateTeamBody, self._limits)
        record = await self._registry.create_team(
            body.id, name=body.name, limits=limits_of(body.limits), by=actor(request)
        )
        return json_response(team_view(record), status=201)

    async def list(self, request: web.Request) -> web.Response:
        """All teams."""
        query = read_query(request, TeamsQuery)
        page = await self._registry.list_teams(cursor=query.cursor, limit=query.limit)
        return list_response([team_view(record) for record in page.items], page.next_cursor)

    async def show(self, request: web.Request) -> web.Response:
        """One team."""
        return json_response(team_view(await self._registry.get_team(request.match_info["id"])))

    async def update(self, request: web.Request) -> web.Response:
        """Change what is given."""
        body = await read_request(request, UpdateTeamBody, self._limits)
        record = await self._registry.update_team(request.match_info["id"], body.changes(), by=actor(request))
        return json_response(team_view(record))

    async def delete(self, request: web.Request) -> web.Response:
        """Refuse all of the team's keys from the next request on; its records and its ledger stay."""
        return json_response(team_view(await self._registry.revoke_team(request.match_info["id"], by=actor(request))))

    async def grant(self, request: web.Request) -> web.Response:
        """Top up a team's quota, or take back of it."""
        body = await read_request(request, GrantBody, self._limits)
        record, entry_id = await self._registry.grant(
            request.match_info["id"], quota_units=body.quota_units, reason=body.reason, by=actor(request)
        )
        return json_response({**team_view(record), "ledger_entry": entry_id}, status=201)

    async def usage(self, request: web.Request) -> web.Response:
        """What a team has used: per limit, by model and by day."""
        return json_response(charges_view(*await self._registry.usage(request.match_info["id"])))


def team_view(record: TeamRecord) -> dict[str, Any]:
    """A team as an operator sees it."""
    return {
        "id": record.id,
        "name": record.name,
        "limits": asdict(record.limits),
        "granted_units": record.granted_units,
        "usage": usage_view(record),
        "images": record.images,
        "created_at": iso_time(record.created_ms),
        "deleted_at": iso_time(record.revoked_ms),
    }
