"""Routes and what is said of them: one table, from which both the router and ``/openapi.json`` are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web_urldispatcher import UrlMappingMatchInfo
from pydantic import BaseModel

from proxy.domain.errors import (
    ExpectationFailed,
    HeadersTooLarge,
    InternalError,
    InvalidApiKey,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    ProxyError,
    RequestTimeout,
    RoleNotAllowed,
    StoreUnavailable,
    UnknownParameter,
    UnsupportedMediaType,
)
from proxy.domain.requests.kinds import Fields

BODY_ERRORS: tuple[type[ProxyError], ...] = (RequestTimeout, PayloadTooLarge, UnsupportedMediaType)


class Access(Enum):
    """What a route asks of its caller: nothing, an API key, an admin token, or one that may change things.

    What is ``TEAM_ADMIN``'s changes the keys of one team.
    """

    FREE = "free"
    KEY = "key"
    VIEWER = "viewer"
    TEAM_ADMIN = "team_admin"
    ADMIN = "admin"


class Scope(Enum):
    """Whose an admin route is: where a request says which team it is about.

    ``GATEWAY`` is about all teams. ``PATH`` and ``QUERY`` name a team, or a key of it. With ``HANDLER`` the handler
    looks at the caller's teams itself. What is ``ANYBODY``'s belongs to no team.
    """

    GATEWAY = "gateway"
    PATH = "path"
    QUERY = "query"
    HANDLER = "handler"
    ANYBODY = "anybody"


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    ``answers`` are the models of its successes by their status, with None for what is no JSON; ``errors`` those that it
    may answer beside those that its access, its body and its path bring along; ``headers`` those of a request that
    change what it does. ``body`` is taken as JSON, ``form`` as multipart/form-data. One that ``streams`` may answer
    with server-sent events as well. Its ``summary`` describes it, or the handler's docstring where that is empty.
    """

    method: str
    path: str
    handler: Handler
    access: Access
    answers: Mapping[int, type[BaseModel] | None]
    body: type[BaseModel] | Fields | None = None
    form: type[BaseModel] | Fields | None = None
    body_may_be_left_out: bool = False
    query: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    errors: tuple[type[ProxyError], ...] = ()
    media_type: str = "application/json"
    streams: bool = False
    summary: str = ""
    scope: Scope = Scope.GATEWAY

    @property
    def all_errors(self) -> tuple[type[ProxyError], ...]:
        """Every error that it may answer."""
        found: list[type[ProxyError]] = [InvalidRequest, ExpectationFailed, HeadersTooLarge, InternalError]
        if self.access is not Access.FREE:
            found += [InvalidApiKey, StoreUnavailable]
        if self.access in (Access.VIEWER, Access.TEAM_ADMIN, Access.ADMIN):
            found.append(RoleNotAllowed)
        if self.access is not Access.FREE and "{" in self.path:
            found.append(NotFound)
        if self.body is not None or self.form is not None:
            found += [UnknownParameter, *BODY_ERRORS]
        return (*dict.fromkeys([*found, *self.errors]),)


def add_routes(app: web.Application, routes: Iterable[Route]) -> None:
    """Serve ``routes``. Whatever may be got may be asked for its headers alone."""
    for route in routes:
        if route.method == "GET":
            app.router.add_get(route.path, route.handler)
        else:
            app.router.add_route(route.method, route.path, route.handler)


Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


def straight(app: web.Application, otherwise: Serve) -> Callable[[Any], Awaitable[web.StreamResponse]]:
    """Serve the routes of ``app``, which are complete, through its middleware; ``otherwise`` is aiohttp's own way.

    That looks for a route part by part of the path, and makes anew what is the same for all requests of a route. Where
    a path has no variable part, one look finds both. ``app`` has no application within it.
    """
    known: dict[tuple[str, str], tuple[UrlMappingMatchInfo, Serve]] = {}
    for route in app.router.routes():
        resource = route.resource
        if isinstance(resource, web.PlainResource):
            match = UrlMappingMatchInfo({}, route)
            match.add_app(app)
            match.freeze()
            serve: Serve = route.handler
            for middleware in reversed(app.middlewares):
                serve = partial(middleware, handler=serve)
            known.setdefault((route.method, resource.canonical), (match, serve))

    def serve_request(request: web.Request) -> Awaitable[web.StreamResponse]:
        found = known.get((request.method, request.raw_path))
        if found is None:
            return otherwise(request)
        # As aiohttp sets it; there is no other way.
        request._match_info, serve = found  # noqa: SLF001
        return serve(request)

    return serve_request
