"""Who may use the admin API: tokens with names and roles, and patience with those that are wrong."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from time import monotonic

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.domain.errors import InvalidApiKey, RateLimitExceeded, RoleNotAllowed
from proxy.metering.actor import Actor
from proxy.telemetry.observation import OBSERVATION
from proxy.web.admin.roles import ADMINISTRATOR, Administrator, AdminToken, Routes, check_role, hash_token
from proxy.web.console.sessions import COOKIE_NEEDS, Sessions

logger = logging.getLogger(__name__)

ADMIN_PREFIX = "/admin/"
TOKEN_LENGTH_LEAST = 16

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
FORGET_AFTER_S = 300.0
ADDRESSES_LIMIT = 1_000
WAITING_LIMIT = 1_000
"""Answers that are held back at one moment; each costs little more than the idle connection that it waits on."""

CAREFUL: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of answers that have no such headers of their own. A browser that sends a cookie keeps no copy of what it reads, runs
nothing of it, and hands it to no page of another origin, such as one on another port of this host."""

WAITING_LIMIT_A_NETWORK = 100
"""Of those, for one network: at the longest delay, 20 guesses a second."""


class WrongTokens:
    """Makes those wait who send wrong tokens, the longer the more of them came from their address.

    A right token never waits: it is looked at first. So it is the waiting that slows guesses down, and the length of a
    token that makes them hopeless. Where too many answers are held back already, no token is looked at from a network
    that has sent wrong ones: an answer at once would answer what a flood asks. Addresses are remembered for
    ``FORGET_AFTER_S``, and the latest ``ADDRESSES_LIMIT`` of them only.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        """``now`` counts seconds."""
        self._now = now
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._closing = asyncio.Event()

    def delay_s(self, address: str) -> float:
        """Count a failure from ``address``; how long its answer should wait, in seconds."""
        network, now = _network(address), self._now()
        count, last = self._failures.pop(network, (0, now))
        count = 1 if now - last > FORGET_AFTER_S else count + 1
        self._failures[network] = count, now
        if count.bit_count() == 1:
            # At 1, 2, 4, 8, …: a flood of wrong tokens is no flood of the log.
            logger.warning("%d wrong admin token(s) or sign-in code(s) from %s", count, network or "an unknown address")
        if len(self._failures) > ADDRESSES_LIMIT:
            self._failures.popitem(last=False)
        return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(count - 1, 32)))

    def check_flood(self, address: str) -> None:
        """Raise RateLimitExceeded where no token should be looked at from ``address`` now."""
        network = _network(address)
        if self._waiting[network] >= WAITING_LIMIT_A_NETWORK or (
            self._waiting.total() >= WAITING_LIMIT and network in self._failures
        ):
            raise RateLimitExceeded(
                "Too many wrong admin tokens came from here; this one was not looked at. Try again later.",
                retry_after_s=math.ceil(LONGEST_DELAY_S),
                rate_limit_headers={},
            )

    async def wait(self, address: str) -> None:
        """Wait as a failure from ``address`` has to."""
        delay_s, network = self.delay_s(address), _network(address)
        self._waiting[network] += 1
        try:
            async with asyncio.timeout(delay_s):
                await self._closing.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting[network] -= 1
            if not self._waiting[network]:
                del self._waiting[network]

    async def let_go(self, _app: web.Application) -> None:
        """Nobody waits any longer: the application shuts down."""
        self._closing.set()


def require_token(
    tokens: Iterable[AdminToken], wrong: WrongTokens, routes: Routes, sessions: Sessions | None = None
) -> Middleware:
    """A middleware that lets nobody at the admin routes without a token or a session, nor past what a role may do.

    Health, metrics and the console's own files need none. Where a token is sent, no cookie is looked at.
    """
    known = tuple(tokens)

    async def find(request: web.Request, client: str) -> Administrator:
        wrong.check_flood(client)
        text = bearer(request.headers.getall("Authorization", ()))
        token = find_token(known, text)
        if token is not None:
            return token
        if text:
            await wrong.wait(client)
        elif sessions is not None and (who := await sessions.of(request)) is not None:
            if not sessions.is_own_page(request):
                raise RoleNotAllowed(COOKIE_NEEDS)
            return who
        raise InvalidApiKey("The admin API needs 'Authorization: Bearer' with one of the gateway's admin tokens.")

    @web.middleware
    async def check_token(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(ADMIN_PREFIX):
            return await handler(request)
        who = await find(request, request[OBSERVATION].client)
        check_role(who, request, routes)
        request[ADMINISTRATOR] = who
        return await handler(request)

    return check_token


async def make_careful(_request: web.Request, response: web.StreamResponse) -> None:
    """Add ``CAREFUL`` to an answer that is about to be sent."""
    for name, value in CAREFUL.items():
        response.headers.setdefault(name, value)


def actor(request: web.Request) -> Actor:
    """Who makes this request, for the audit record."""
    return Actor(request[ADMINISTRATOR].name, request[OBSERVATION].request_id)


def bearer(values: Sequence[str]) -> str:
    """The token of the ``Authorization`` headers of a request; empty where they hold none, or are several."""
    scheme, _, text = values[0].strip().partition(" ") if len(values) == 1 else ("", "", "")
    return text.strip() if scheme.lower() == "bearer" else ""


def find_token(known: Sequence[AdminToken], text: str) -> AdminToken | None:
    """The token with this text. It takes as long whichever of them it is, and however much of it is right."""
    given, found = hash_token(text), None
    for token in known:
        if hmac.compare_digest(token.sha256, given):
            found = token
    return found


def _network(address: str) -> str:
    """Whoever has one IPv6 address has the 2^64 of its network."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return address if parsed.version == 4 else parsed.exploded[:19]  # noqa: PLR2004 - IP's version
