"""The console on the admin listener: its files, and signing in and out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from proxy.domain.errors import InvalidApiKey, RoleNotAllowed
from proxy.domain.money import Money
from proxy.telemetry.observation import OBSERVATION
from proxy.telemetry.version import package_version
from proxy.web.admin.access import WrongTokens, bearer, find_token
from proxy.web.admin.bodies import read_request
from proxy.web.admin.roles import Administrator, AdminToken
from proxy.web.console.first_image import PICTURE, FirstImageView
from proxy.web.console.sessions import COOKIE_NEEDS, Sessions
from proxy.web.console.static_files import FOLDER, file_routes, read_files
from proxy.web.intake.request_body import BodyLimits
from proxy.web.public.models import json_response
from proxy.web.times import iso_time

logger = logging.getLogger(__name__)

CONSOLE = "/console/"
SESSION = "/console/session"
CODES = "/console/codes"
WAYS = "/console/ways"
PAGES = ("overview", "teams", "keys", "usage", "statements", "ledger", "models", "books", "audit")
"""Each has an address of its own, below ``/console/``; the script there shows what the address says."""

NOT_KEPT = {"Cache-Control": "no-store"}


class SignInBody(BaseModel):
    """``POST /console/session``: an admin token, or the code of a sign-in link, and whether that is wanted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: Annotated[str, Field(min_length=1, max_length=4_096)] | None = None
    code: Annotated[str, Field(min_length=1, max_length=4_096)] | None = None
    confirmed: bool = False


def _question(linked: AdminToken, now: Administrator | None) -> web.Response:
    """Whom a link signs in, for who has opened it; ``now`` is who is signed in in that browser."""
    who = {"name": linked.name, "role": linked.role, "teams": sorted(linked.teams)}
    response = json_response({"confirm": who, "now": None if now is None else now.name}, status=202)
    response.headers.update(NOT_KEPT)
    return response


class Console:
    """Handlers of ``/console/``."""

    def __init__(
        self,
        sessions: Sessions,
        tokens: Sequence[AdminToken],
        wrong: WrongTokens,
        limits: BodyLimits,
        money: Money,
        public_url: Callable[[], str],
        oidc_name: str | None = None,
    ) -> None:
        """Sign people in by ``tokens``, the gateway's own first; ``wrong`` makes those wait who guess.

        ``public_url`` is where clients call.

        ``oidc_name`` is what people call the OpenID provider that they may sign in by.
        """
        self._oidc_name = oidc_name
        self._sessions = sessions
        self._tokens = tuple(tokens)
        self._wrong = wrong
        self._limits = limits
        self._money = money
        self._public_url = public_url
        self.first_image = FirstImageView(sessions)

    def add_to(self, app: web.Application) -> None:
        """Serve the console. Its pages hold no data: that comes from the admin API, to who is signed in."""
        router, files = app.router, read_files(FOLDER)
        page = files["console.html"].show
        router.add_get(CONSOLE.rstrip("/"), self.to_console)
        router.add_get("/", self.to_console)
        router.add_get(CONSOLE, page)
        for name in PAGES:
            router.add_get(f"{CONSOLE}{name}", page)
            router.add_get(f"{CONSOLE}{name}/{{id}}", page)
        for path, show in file_routes(CONSOLE, files, ("console/", "pages/", "parts/")):
            router.add_get(path, show)
        router.add_get(SESSION, self.show)
        router.add_get(WAYS, self.show_ways)
        router.add_post(SESSION, self.sign_in)
        router.add_delete(SESSION, self.sign_out)
        router.add_post(CODES, self.make_code)
        router.add_get(PICTURE, self.first_image.show)

    async def to_console(self, _request: web.Request) -> web.Response:
        """Where people find it."""
        return web.Response(status=302, headers={"Location": CONSOLE})

    async def show_ways(self, _request: web.Request) -> web.Response:
        """How people may sign in beside a token; for who is not signed in yet."""
        return json_response({"oidc": self._oidc_name})

    async def show(self, request: web.Request) -> web.Response:
        """Who is signed in. Raises InvalidApiKey where nobody is."""
        who = await self._sessions.of(request)
        if who is None:
            raise InvalidApiKey("Nobody is signed in.")
        return self._answer(who, self._sessions.ends_at(request))

    async def sign_in(self, request: web.Request) -> web.Response:
        """Begin a session by a token or by a link's code. Raises InvalidApiKey; guesses wait as for the admin API.

        A link of somebody else would have its reader work in that one's name: 202 says whose it is, and it signs in
        once that is ``confirmed``.
        """
        self._check_origin(request)
        client = request[OBSERVATION].client
        self._wrong.check_flood(client)
        body = await read_request(request, SignInBody, self._limits)
        who = find_token(self._tokens, body.token.strip()) if body.token else None
        if who is None and body.code:
            linked = await self._sessions.read_code(body.code)
            if linked is not None and not body.confirmed:
                now = await self._sessions.of(request)
                if self._is_asked(linked, now):
                    return _question(linked, now)
            who = None if linked is None else await self._sessions.use_code(body.code)
        if who is None:
            await self._wrong.wait(client)
            raise InvalidApiKey(
                "This link was used, or is older than two minutes: 'lightmeter console' prints a new one."
                if body.code
                else "This is none of the gateway's admin tokens."
            )
        response = self._answer(who, None)
        self._sessions.begin(who, response)
        logger.info("%s signed in to the console from %s", who.name, client or "an unknown address")
        return response

    def _is_asked(self, linked: AdminToken, now: Administrator | None) -> bool:
        """Whether a link is to be confirmed: a link of the gateway's own token gives nobody less than they had."""
        return linked is not self._tokens[0] if now is None else linked.name != now.name

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the session."""
        self._check_origin(request)
        response = web.Response(status=204, headers=NOT_KEPT)
        await self._sessions.end(request, response)
        return response

    async def make_code(self, request: web.Request) -> web.Response:
        """A sign-in link for the owner of a token, as ``lightmeter console`` prints it."""
        client = request[OBSERVATION].client
        self._wrong.check_flood(client)
        text = bearer(request.headers.getall("Authorization", ()))
        token = find_token(self._tokens, text)
        if token is None:
            if text:
                await self._wrong.wait(client)
            raise InvalidApiKey("A sign-in link is made with 'Authorization: Bearer' and an admin token.")
        return json_response({"path": f"{CONSOLE}#code={self._sessions.make_code(token)}"}, status=201)

    def _answer(self, who: Administrator, ends_at: float | None) -> web.Response:
        units = self._money.units_per_usd
        response = json_response(
            {
                "name": who.name,
                "role": who.role,
                "teams": sorted(who.teams),
                "ends_at": None if ends_at is None else iso_time(int(ends_at * 1000)),
                "version": package_version(),
                "public_url": self._public_url(),
                "units_per_usd": None if units is None else f"{units:f}",
                "first_image": self.first_image.about(who),
            }
        )
        response.headers.update(NOT_KEPT)
        return response

    def _check_origin(self, request: web.Request) -> None:
        if not self._sessions.is_own_page(request):
            raise RoleNotAllowed(COOKIE_NEEDS)
