"""An OpenID provider: what it says of itself, its keys, and the ID token that it gives for a code.

https://openid.net/specs/openid-connect-discovery-1_0.html, https://www.rfc-editor.org/rfc/rfc6749,
https://www.rfc-editor.org/rfc/rfc7636
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from time import monotonic
from typing import Any, Generic, TypeVar
from urllib.parse import quote_plus

from yarl import URL

from proxy.web.console.oidc.fetching import Fetcher, Unreachable
from proxy.web.console.oidc.refusal import CodeRefused, SignInRefused, shown

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

KEEP_S = 3_600.0
"""How long a provider's description and its keys are believed. A key that is not among them is asked for at once."""

CALLBACK = "/console/oidc/callback"
"""Where a provider sends back to, behind the console's origin."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Client:
    """The gateway as a provider knows it; a public client has no secret."""

    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    redirect_uri: str
    client_secret: str = field(repr=False, default="")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is needed of a provider's description."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    takes_basic: bool
    """Whether the client's secret goes into ``Authorization``, and not into the form."""

    names_itself: bool
    """Whether ``iss`` comes back with each code (RFC 9207)."""


class Kept(Generic[Found]):
    """Something that is fetched once for all who wait for it, and kept for ``KEEP_S``."""

    def __init__(self, fetch: Callable[[], Awaitable[Found]], now: Callable[[], float]) -> None:
        """``now`` counts seconds."""
        self._fetch = fetch
        self._now = now
        self._found: tuple[Found, float] | None = None
        self._task: asyncio.Task[Found] | None = None

    async def get(self, *, anew: bool = False) -> Found:
        """What is kept, or else, and with ``anew``, what is fetched. Raises what fetching does."""
        if not anew and self._found is not None and self._found[1] > self._now():
            return self._found[0]
        if self._task is None:
            self._task = asyncio.create_task(self._get())
            self._task.add_done_callback(self._ended)
        # Who waits may go away; the others still wait.
        return await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Fetch no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _get(self) -> Found:
        found = await self._fetch()
        self._found = found, self._now() + KEEP_S
        return found

    def _ended(self, task: asyncio.Task[Found]) -> None:
        self._task = None
        if not task.cancelled():
            # Seen, also where nobody waits any more.
            task.exception()


class Issuer:
    """A provider, as the gateway's client talks with it."""

    def __init__(self, client: Client, fetcher: Fetcher, now: Callable[[], float] = monotonic) -> None:
        """Nothing is asked yet."""
        self.client = client
        self._fetcher = fetcher
        self._metadata = Kept(self._fetch_metadata, now)
        self._keys = Kept(self._fetch_keys, now)

    async def metadata(self) -> Metadata:
        """What the provider says of itself. Raises SignInRefused."""
        return await self._metadata.get()

    async def keys(self, *, anew: bool = False) -> list[Mapping[str, Any]]:
        """The provider's keys, as it publishes them. Raises SignInRefused."""
        return await self._keys.get(anew=anew)

    async def address(self, *, state: str, nonce: str, verifier: str) -> str:
        """Where a browser is sent. Raises SignInRefused."""
        endpoint = URL((await self.metadata()).authorization_endpoint)
        return str(
            endpoint.extend_query(
                {
                    "response_type": "code",
                    "client_id": self.client.client_id,
                    "redirect_uri": self.client.redirect_uri,
                    "scope": " ".join(self.client.scopes),
                    "state": state,
                    "nonce": nonce,
                    "code_challenge": challenge(verifier),
                    "code_challenge_method": "S256",
                }
            )
        )

    async def exchange(self, code: str, verifier: str) -> str:
        """The ID token for ``code``; it is not checked. Raises SignInRefused."""
        metadata, client = await self.metadata(), self.client
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": client.redirect_uri,
            "code_verifier": verifier,
        }
        headers = {}
        if client.client_secret and metadata.takes_basic:
            pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = client.client_id
            if client.client_secret:
                form["client_secret"] = client.client_secret
        status, answer = await self._fetcher.post(metadata.token_endpoint, form, headers)
        if status != HTTPStatus.OK:
            kind = CodeRefused if answer.get("error") == "invalid_grant" else SignInRefused
            raise kind(self._why(status, answer.get("error")))
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise SignInRefused("The OpenID provider gives no ID token: admin.oidc.scopes has to hold 'openid'.")
        return token

    async def close(self) -> None:
        """Ask no more."""
        await self._metadata.stop()
        await self._keys.stop()
        await self._fetcher.close()

    def _why(self, status: int, error: object) -> str:
        client = self.client
        match error:
            case "invalid_grant":
                return (
                    "The OpenID provider refuses the code (invalid_grant): it was used before, or is too old, or "
                    f"{client.redirect_uri} is not the redirect address that the client {client.client_id} has there."
                )
            case "invalid_client" | "unauthorized_client":
                return (
                    f"The OpenID provider does not take the client {client.client_id} ({error}): look at "
                    "admin.oidc.client_id, at the secret in the variable of client_secret_env, and whether the client "
                    "is public or confidential there."
                )
            case _:
                named = f" ({shown(error)})" if isinstance(error, str) else ""
                return f"The OpenID provider gives no token for the code: it answers {status}{named}."

    async def _fetch_metadata(self) -> Metadata:
        issuer = self.client.issuer
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        found = await self._fetcher.get(url)
        if found.get("issuer") != issuer:
            raise Unreachable(
                f"The OpenID provider at {issuer} says that it is {shown(found.get('issuer'))}: admin.oidc.issuer has "
                "to be what it says, to the last character."
            )
        methods = found.get("token_endpoint_auth_methods_supported")
        return Metadata(
            authorization_endpoint=self._endpoint(found, "authorization_endpoint"),
            token_endpoint=self._endpoint(found, "token_endpoint"),
            jwks_uri=self._endpoint(found, "jwks_uri"),
            takes_basic=not isinstance(methods, list)
            or "client_secret_basic" in methods
            or "client_secret_post" not in methods,
            names_itself=found.get("authorization_response_iss_parameter_supported") is True,
        )

    def _endpoint(self, found: Mapping[str, Any], name: str) -> str:
        text = found.get(name)
        own = URL(self.client.issuer).scheme
        if not isinstance(text, str) or not is_safe(text) or URL(text).scheme not in ("https", own):
            raise Unreachable(
                f"The OpenID provider at {self.client.issuer} gives {shown(text)} for {name}: an https:// address "
                "is needed."
            )
        return text

    async def _fetch_keys(self) -> list[Mapping[str, Any]]:
        url = (await self.metadata()).jwks_uri
        keys = (await self._fetcher.get(url)).get("keys")
        if not isinstance(keys, list):
            raise Unreachable(f"The OpenID provider has no list of keys at {shown(url)}.")
        return [key for key in keys if isinstance(key, dict)]


def challenge(verifier: str) -> str:
    """What is told of ``verifier`` before it is shown (RFC 7636, S256)."""
    return urlsafe_b64encode(sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()


def is_safe(text: str) -> bool:
    """Whether it is an address that may be asked: by TLS, or on this machine."""
    try:
        url = URL(text)
    except ValueError:
        return False
    if not url.host or "#" in text or url.user or url.password:
        return False
    return url.scheme == "https" or (url.scheme == "http" and url.host in LOOPBACK)
