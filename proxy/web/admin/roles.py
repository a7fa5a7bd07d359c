"""Who administers a gateway, and which routes each role may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Final

from aiohttp import web

from proxy.domain.api_key import team_of
from proxy.domain.errors import RoleNotAllowed
from proxy.web.server.routes import Access, Route, Scope

READING = frozenset({"GET", "HEAD"})


class Role(StrEnum):
    """What an administrator may do.

    ``admin`` everything, ``viewer`` read everything, ``team_admin`` read what is of named teams, and manage their keys.
    """

    ADMIN = "admin"
    VIEWER = "viewer"
    TEAM_ADMIN = "team_admin"


@dataclass(frozen=True, slots=True)
class Administrator:
    """Somebody who may use the admin API; ``teams`` are those of a ``team_admin``."""

    name: str
    role: Role
    teams: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AdminToken(Administrator):
    """A token as it is kept here: by its name, and only the SHA-256 of its text."""

    sha256: bytes = field(default=b"", kw_only=True)

    @classmethod
    def of(cls, name: str, role: Role, text: str, teams: Sequence[str] = ()) -> AdminToken:
        """The token with this text."""
        return cls(name, role, frozenset(teams), sha256=hash_token(text))


ADMINISTRATOR: Final = web.RequestKey("administrator", Administrator)
"""Who makes a request on the admin API."""


def hash_token(text: str) -> bytes:
    """The SHA-256 of a token's text, whatever bytes it was sent as."""
    return sha256(text.encode("utf-8", "surrogateescape")).digest()


Routes = Mapping[tuple[str, str], Route]
"""By method and by path as it is configured."""


def by_place(routes: Sequence[Route]) -> Routes:
    """``routes`` by where they stand."""
    return {(route.method, route.path): route for route in routes}


def check_role(who: Administrator, request: web.Request, routes: Routes) -> None:
    """Raise RoleNotAllowed where ``who`` may not make this request. What no route is known of is an administrator's."""
    if who.role is Role.ADMIN:
        return
    resource = request.match_info.route.resource
    place = "GET" if request.method == "HEAD" else request.method, "" if resource is None else resource.canonical
    route = routes.get(place)
    if who.role is Role.VIEWER:
        if (route is None and request.method in READING) or (route is not None and route.access is Access.VIEWER):
            return
        what = "The admin token " if isinstance(who, AdminToken) else ""
        raise RoleNotAllowed(
            f"{what}'{who.name}' is a {who.role}, which may read and change nothing; "
            f"{request.method} needs a token with the role '{Role.ADMIN}'."
        )
    if route is None or route.access not in (Access.VIEWER, Access.TEAM_ADMIN) or route.scope is Scope.GATEWAY:
        raise RoleNotAllowed(
            f"'{who.name}' is a {who.role}, which may read what is of its own teams, and manage their keys; "
            f"this needs the role '{Role.ADMIN}'."
        )
    if route.scope is Scope.PATH:
        account = request.match_info.get("id") or request.match_info.get("team", "")
        check_team(who, team_of(account) or account)
    elif route.scope is Scope.QUERY:
        _check_query(who, request)


def check_team(who: Administrator, team: str) -> None:
    """Raise RoleNotAllowed where ``who`` may do nothing for ``team``."""
    if who.role is Role.TEAM_ADMIN and team not in who.teams:
        raise RoleNotAllowed(f"'{who.name}' is a {who.role} of {', '.join(sorted(who.teams))} only.")


def _check_query(who: Administrator, request: web.Request) -> None:
    """A list over all teams is nothing for somebody who may see some of them."""
    teams = [*request.query.getall("team", []), *(team_of(key) or "" for key in request.query.getall("key", []))]
    if not teams:
        raise RoleNotAllowed(
            f"'{who.name}' is a {who.role}: name one of its teams with 'team' ({', '.join(sorted(who.teams))})."
        )
    for team in teams:
        check_team(who, team)
