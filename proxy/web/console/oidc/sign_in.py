"""The two addresses of a sign-in by an OpenID provider: where it begins, and where the provider sends back to."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web

from proxy.domain.errors import ProxyError
from proxy.telemetry.observation import OBSERVATION
from proxy.web.admin.access import WrongTokens
from proxy.web.admin.roles import Administrator
from proxy.web.console.oidc.id_token import IdTokenChecker, UnknownKey
from proxy.web.console.oidc.issuer import CALLBACK, Issuer
from proxy.web.console.oidc.refusal import (
    CodeRefused,
    NotAllowed,
    SignInRefused,
    TooMany,
    WrongReturn,
    refusal_page,
    shown,
)
from proxy.web.console.oidc.rules import ClaimRules
from proxy.web.console.sessions import Memory, Sessions, Signer

logger = logging.getLogger(__name__)

START = "/console/oidc/start"
PURPOSE = "oidc"
STATE_S = 600
"""How long somebody may take at the provider."""

CODE_CHARACTERS_LIMIT = 8_192
AT_ONCE_LIMIT = 16
"""Codes that the provider is asked for at one moment."""

_own_page = re.compile(r"/console/[A-Za-z0-9/_.~%?&=+,:@-]{0,1000}")


class OidcSignIn:
    """Signs people in by what an OpenID provider says of them."""

    def __init__(
        self,
        name: str,
        issuer: Issuer,
        rules: ClaimRules,
        sessions: Sessions,
        signer: Signer,
        memory: Memory,
        wrong: WrongTokens,
        *,
        secure: bool,
    ) -> None:
        """``name`` is what people call the provider. ``memory`` remembers what was used once, and ``wrong`` makes
        those wait who guess.
        """
        self._wrong = wrong
        self.name = name
        self._issuer = issuer
        self._rules = rules
        self._sessions = sessions
        self._signer = signer
        self._memory = memory
        self._secure = secure
        self._checker = IdTokenChecker(issuer.client.issuer, issuer.client.client_id)
        self._slots = asyncio.Semaphore(AT_ONCE_LIMIT)
        self._first_look: asyncio.Task[None] | None = None
        self.cookie = "__Host-lightmeter-oidc" if secure else "lightmeter_oidc"

    def add_to(self, app: web.Application) -> None:
        """Serve both addresses."""
        # A HEAD would use up what the GET is for.
        app.router.add_get(START, self._page(self._start), allow_head=False)
        app.router.add_get(CALLBACK, self._page(self._return), allow_head=False)
        app.on_startup.append(self._look)
        app.on_cleanup.append(self._close)

    # --- Both ways ----------------------------------------------------------------------------------------------------

    async def _start(self, request: web.Request) -> web.Response:
        """Send the browser to the provider, with a cookie that knows it when it comes back."""
        to = request.query.get("to", "")
        begun = {name: secrets.token_urlsafe(32) for name in ("state", "nonce", "verifier")}
        address = await self._issuer.address(**begun)
        response = _redirect(address)
        kept = {**begun, "to": to if _own_page.fullmatch(to) else "/console/"}
        self._set(response, self._signer.sign(PURPOSE, kept, for_s=STATE_S), STATE_S)
        return response

    async def _return(self, request: web.Request) -> web.Response:
        """Begin a session of whom the provider's answer is about."""
        client = request[OBSERVATION].client
        self._wrong.check_flood(client)
        begun = self._begun(request)
        # Before anything is asked for: whoever has the address and the cookie as well comes too late.
        if not await self._memory.take(f"oidc:{begun['state']}", for_s=STATE_S):
            raise WrongReturn("This sign-in was finished before: begin again.")
        code = await self._code(request)
        if self._slots.locked():
            raise TooMany("Too many people sign in at this moment: try again.")
        async with self._slots:
            token = await self._issuer.exchange(code, begun["verifier"])
            who = self._rules.admit(await self._claims(token, begun["nonce"]))
        response = _redirect(begun["to"])
        self._set(response, "", 0)
        try:
            self._sessions.begin(who, response)
        except ValueError:
            raise NotAllowed(f"{who.name} has more teams than a session holds: name fewer for each person.") from None
        _tell(who, client)
        return response

    def _begun(self, request: web.Request) -> dict[str, str]:
        begun = self._signer.read(PURPOSE, request.cookies.get(self.cookie, ""))
        if begun is None:
            raise WrongReturn(
                f"No sign-in was begun in this browser within {STATE_S // 60} minutes, at the address that the "
                f"provider sends back to, {self._issuer.client.redirect_uri}: open the console there "
                "(admin.public_url), and begin again."
            )
        if not hmac.compare_digest(_only(request, "state").encode(), str(begun["state"]).encode()):
            raise WrongReturn("This is not the sign-in that was begun last in this browser: begin again.")
        return begun

    async def _code(self, request: web.Request) -> str:
        issuer, named = self._issuer.client.issuer, _only(request, "iss")
        if error := _only(request, "error"):
            why = f"The OpenID provider says that the sign-in has failed: {shown(error)}."
            raise NotAllowed(why) if error == "access_denied" else SignInRefused(why)
        if named != issuer and (named or (await self._issuer.metadata()).names_itself):
            raise SignInRefused(f"The answer is of {shown(named) or 'nobody'} (iss), not of {issuer}.")
        code = _only(request, "code")
        if not 0 < len(code) <= CODE_CHARACTERS_LIMIT:
            raise WrongReturn("The OpenID provider sends back without a code: begin again.")
        return code

    async def _claims(self, token: str, nonce: str) -> dict[str, object]:
        """Of a token that is good. Keys that are not known are asked for anew, once: providers change them."""
        now_s = self._signer.now()
        try:
            return self._checker.check(token, await self._issuer.keys(), nonce=nonce, now_s=now_s)
        except UnknownKey:
            return self._checker.check(token, await self._issuer.keys(anew=True), nonce=nonce, now_s=now_s)

    # --- Around them --------------------------------------------------------------------------------------------------

    def _page(
        self, handle: Callable[[web.Request], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """``handle`` for browsers: what it refuses is a page."""

        async def answer(request: web.Request) -> web.Response:
            try:
                response = await handle(request)
            except SignInRefused as refused:
                level = logging.INFO if isinstance(refused, WrongReturn) else logging.WARNING
                logger.log(level, "nobody was signed in to the console by %s: %s", self.name, refused)
                if isinstance(refused, CodeRefused):
                    await self._wrong.wait(request[OBSERVATION].client)
                response = refusal_page(refused.status, str(refused))
            except ProxyError as error:
                response = refusal_page(error.wire_status, error.message)
            return response

        return answer

    async def _look(self, _app: web.Application) -> None:
        """Look for the provider, so that an operator is told before anybody wants to sign in."""

        async def look() -> None:
            client = self._issuer.client
            try:
                await self._issuer.metadata()
            except SignInRefused as refused:
                logger.warning("nobody can sign in to the console by %s now: %s", self.name, refused)
            else:
                logger.info(
                    "people sign in to the console by %s, whose client %s has the redirect address %s",
                    client.issuer,
                    client.client_id,
                    client.redirect_uri,
                )

        self._first_look = asyncio.create_task(look())

    async def _close(self, _app: web.Application) -> None:
        if self._first_look is not None:
            self._first_look.cancel()
        await self._issuer.close()

    def _set(self, response: web.Response, text: str, max_age_s: int) -> None:
        # Lax: the provider's page is what sends the browser back.
        response.set_cookie(
            self.cookie, text, max_age=max_age_s, path="/", httponly=True, samesite="Lax", secure=self._secure
        )


def _redirect(address: str) -> web.Response:
    return web.Response(
        status=302, headers={"Location": address, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    )


def _only(request: web.Request, name: str) -> str:
    """The parameter; what is given twice is nothing."""
    values = request.query.getall(name, [])
    return values[0] if len(values) == 1 else ""


def _tell(who: Administrator, client: str) -> None:
    of_teams = f" of {', '.join(sorted(who.teams))}" if who.teams else ""
    place = client or "an unknown address"
    logger.info("%s signed in to the console from %s, as %s%s", who.name, place, who.role, of_teams)
