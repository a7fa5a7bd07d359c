"""Sessions of people who are signed in: a signed cookie, which is read without asking anybody.

What a cookie says is signed with a secret that follows from the gateway's admin token, so that all processes and
gateways of one token read each other's, and nothing is stored for a session that runs. One that was ended is remembered
in the store until it would have ended by age. A session of a token ends with the token; it may do what the token may.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from hashlib import scrypt, sha256
from time import time
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from proxy.domain.errors import ProxyError
from proxy.web.admin.roles import READING, Administrator, AdminToken, Role

logger = logging.getLogger(__name__)

OWN_HEADER = "x-lightmeter-console"
COOKIE_NEEDS = (
    f"A change that is made with the console's cookie needs the header '{OWN_HEADER}: 1', and comes from its own pages."
)
LINK_S = 120
"""How long a sign-in link may be used."""

COOKIE_LIMIT = 3_500
"""Browsers keep cookies of up to 4,096 bytes with their names and attributes."""


class Memory(Protocol):
    """Names that are taken once."""

    async def take(self, name: str, *, for_s: int) -> bool:
        """Whether ``name`` is taken by this call."""

    async def is_taken(self, name: str) -> bool:
        """Whether somebody has taken ``name``."""


class Signer:
    """Signs what is given out, so that it is known when it comes back, and for which purpose."""

    def __init__(self, secret: str, now: Callable[[], float] = time) -> None:
        """Sign with what follows from ``secret``; ``now`` is in seconds since the epoch."""
        self._key = _slow_key(secret)
        self.now = now

    def sign(self, purpose: str, content: Mapping[str, Any], *, for_s: float) -> str:
        """``content`` as a text that ``read`` takes for ``for_s`` seconds."""
        payload = _text(orjson.dumps({**content, "until": self.now() + for_s}))
        return f"{payload}.{_text(self._mac(purpose, payload))}"

    def read(self, purpose: str, text: str) -> dict[str, Any] | None:
        """What was signed for this purpose, None where it was not, or its time is over."""
        payload, _, mac = text.partition(".")
        try:
            if not hmac.compare_digest(self._mac(purpose, payload), _bytes(mac)):
                return None
            content: dict[str, Any] = orjson.loads(_bytes(payload))
        except ValueError:
            return None
        return content if content["until"] > self.now() else None

    def fingerprint(self, text: bytes) -> str:
        """A short text that differs for different ``text``, and tells nothing of it."""
        return hmac.new(self._key, b"fingerprint\0" + text, sha256).hexdigest()[:32]

    def _mac(self, purpose: str, payload: str) -> bytes:
        return hmac.digest(self._key, f"{purpose}\0{payload}".encode("utf-8", "surrogateescape"), sha256)


class Sessions:
    """Who is signed in."""

    def __init__(
        self,
        signer: Signer,
        tokens: Iterable[AdminToken],
        memory: Memory,
        *,
        max_age_s: int,
        secure: bool,
        public_url: str | None = None,
        people: bytes = b"",
    ) -> None:
        """Sessions last ``max_age_s``; a cookie that is ``secure`` is sent over TLS only.

        ``public_url`` is the origin of the console where that is behind another server. ``people`` is what somebody
        without a token is let in by: a session ends where that becomes another.
        """
        self._people = signer.fingerprint(b"people\0" + people)
        self._public_url = public_url
        self._signer = signer
        self._tokens = {token.name: token for token in tokens}
        self._memory = memory
        self._max_age_s = max_age_s
        self.secure = secure
        self.cookie = "__Host-lightmeter" if secure else "lightmeter_session"

    def begin(self, who: Administrator, response: web.Response) -> None:
        """Let ``response`` begin a session. Raises ValueError where ``who`` has more teams than a cookie holds."""
        content: dict[str, Any] = {"id": secrets.token_urlsafe(12), "name": who.name}
        if isinstance(who, AdminToken):
            content["token"] = self._signer.fingerprint(who.sha256)
        else:
            content |= {"role": who.role, "teams": sorted(who.teams), "people": self._people}
        text = self._signer.sign("session", content, for_s=self._max_age_s)
        if len(text) > COOKIE_LIMIT:
            raise ValueError(f"{who.name} has too many teams for a session")
        self._set(response, text, self._max_age_s)

    async def of(self, request: web.Request) -> Administrator | None:
        """Who makes the request, None where its cookie is none, or its session has ended."""
        found = self._read(request)
        if found is None:
            return None
        content, who = found
        try:
            ended = await self._memory.is_taken(f"session:{content['id']}")
        except ProxyError:
            # Without the store nothing can be changed; a page that says so may be read.
            ended = request.method not in READING
        return None if ended else who

    async def end(self, request: web.Request, response: web.Response) -> None:
        """Sign out: the cookie is taken away, and good for nothing. Raises StoreUnavailable."""
        if (found := self._read(request)) is not None:
            content, who = found
            await self._memory.take(f"session:{content['id']}", for_s=int(content["until"] - self._signer.now()) + 1)
            logger.info("%s signed out of the console", who.name)
        self._set(response, "", 0)

    def ends_at(self, request: web.Request) -> float | None:
        """When the request's session ends by age, in seconds since the epoch."""
        found = self._read(request)
        return None if found is None else float(found[0]["until"])

    def is_own_page(self, request: web.Request) -> bool:
        """Whether a request with a cookie may do what it asks for: it reads, or one of the console's pages has made it.

        A page of another origin cannot set the header without asking first, and gets no answer that would allow it; and
        the origin that its browser tells is neither this host nor ``admin.public_url``.
        """
        if request.method in READING:
            return True
        origin = request.headers.get("Origin")
        own = origin in (None, self._public_url) or urlsplit(origin or "").netloc == request.host
        return request.headers.get(OWN_HEADER) == "1" and own

    # --- Sign-in links ------------------------------------------------------------------------------------------------

    def make_code(self, who: AdminToken, *, for_s: int = LINK_S) -> str:
        """A code that signs in as ``who``, once, within ``for_s``."""
        content = {"id": secrets.token_urlsafe(12), "name": who.name, "token": self._signer.fingerprint(who.sha256)}
        return self._signer.sign("code", content, for_s=for_s)

    async def read_code(self, code: str) -> AdminToken | None:
        """Whom the code would sign in, None where it is wrong, late or used. Raises StoreUnavailable."""
        content = self._signer.read("code", code)
        if content is None or await self._memory.is_taken(f"code:{content['id']}"):
            return None
        return self._token_of(content)

    async def use_code(self, code: str) -> AdminToken | None:
        """Whom the code signs in, None where it is wrong, late or used. Raises StoreUnavailable."""
        content = self._signer.read("code", code)
        token = None if content is None else self._token_of(content)
        if content is None or token is None:
            return None
        for_s = int(content["until"] - self._signer.now()) + 1
        return token if await self._memory.take(f"code:{content['id']}", for_s=for_s) else None

    # --- Below them ---------------------------------------------------------------------------------------------------

    def _read(self, request: web.Request) -> tuple[dict[str, Any], Administrator] | None:
        content = self._signer.read("session", request.cookies.get(self.cookie, ""))
        if content is None:
            return None
        if "token" in content:
            token = self._token_of(content)
            return None if token is None else (content, token)
        if not hmac.compare_digest(str(content.get("people", "")), self._people):
            return None
        return content, Administrator(content["name"], Role(content["role"]), frozenset(content["teams"]))

    def _token_of(self, content: Mapping[str, Any]) -> AdminToken | None:
        """The token that was signed in with, None where there is none of its name and text any more."""
        token = self._tokens.get(content["name"])
        if token is None or not hmac.compare_digest(self._signer.fingerprint(token.sha256), content["token"]):
            return None
        return token

    def _set(self, response: web.Response, text: str, max_age_s: int) -> None:
        response.set_cookie(
            self.cookie, text, max_age=max_age_s, path="/", httponly=True, samesite="Strict", secure=self.secure
        )


@cache
def _slow_key(secret: str) -> bytes:
    """What a guess at ``secret`` costs: whoever may only read has a cookie to compare guesses with (RFC 7914)."""
    return scrypt(secret.encode(), salt=b"lightmeter console", n=2**14, r=8, p=1, dklen=32)


def _text(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
