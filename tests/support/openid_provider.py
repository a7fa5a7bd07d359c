"""An OpenID provider that runs: discovery, authorization with PKCE, tokens and keys, with the faults that a test wants.

It signs whoever ``person`` is in without asking, as a provider does with whom it knows.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_plus

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from yarl import URL

from tests.support.processes import free_port

Claims = dict[str, Any]
SigningKey = RSAKey | ECKey
SECRET = "the secret of the client & its = signs"
PERSON: Claims = {"sub": "u-1", "email": "ada@acme.example", "email_verified": True, "groups": ["operators"]}


def text_of(content: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def rsa_key(key_id: str) -> RSAKey:
    """A new key."""
    return RSAKey.generate_key(2_048, {"kid": key_id, "use": "sig", "alg": "RS256"})


def signed(claims: Claims, key: SigningKey, algorithm: str = "RS256", **header: Any) -> str:
    """A token that is good."""
    return jwt.encode({"alg": algorithm, "kid": key.kid, **header}, claims, key, algorithms=[algorithm])


def unsigned(claims: Claims, key: SigningKey) -> str:
    """A token of the algorithm ``none``."""
    header = {"alg": "none", "typ": "JWT", "kid": key.kid}
    return f"{text_of(json.dumps(header).encode())}.{text_of(json.dumps(claims).encode())}."


def signed_with_what_is_public(claims: Claims, key: SigningKey) -> str:
    """A token whose HMAC has the public key for its secret."""
    header = {"alg": "HS256", "typ": "JWT", "kid": key.kid}
    text = f"{text_of(json.dumps(header).encode())}.{text_of(json.dumps(claims).encode())}"
    return f"{text}.{text_of(hmac.digest(key.as_pem(private=False), text.encode(), 'sha256'))}"


@dataclass
class OpenIdProvider:
    """One client, and how the provider treats it."""

    port: int
    redirect_uri: str
    client_id: str = "lightmeter"
    secret: str = SECRET
    host: str = "localhost"
    """Another site than 127.0.0.1, for a browser."""

    keys: list[SigningKey] = field(default_factory=lambda: [rsa_key("first")])
    person: Claims = field(default_factory=lambda: dict(PERSON))
    sign: Callable[[Claims, SigningKey], str] = signed
    changes: Claims = field(default_factory=dict)
    """Claims that its ID tokens have otherwise; None takes one away."""

    refuses: str = ""
    """What it answers in place of a code."""

    metadata_changes: dict[str, Any] = field(default_factory=dict)
    document: Callable[[web.Request], web.StreamResponse | None] = lambda _: None
    """What is answered in place of everything, where that is something."""

    asked: list[str] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        """Its name for itself."""
        return f"http://{self.host}:{self.port}/realms/main"

    def reset(self) -> None:
        """Be a good provider again."""
        self.person, self.sign, self.changes = dict(PERSON), signed, {}
        self.refuses, self.metadata_changes = "", {}
        self.document = lambda _: None

    def application(self) -> web.Application:
        """What answers."""
        app = web.Application(middlewares=[self._note])
        app.router.add_get("/realms/main/.well-known/openid-configuration", self._describe)
        app.router.add_get("/realms/main/authorize", self._authorize)
        app.router.add_post("/realms/main/token", self._give)
        app.router.add_get("/realms/main/keys", self._show_keys)
        return app

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path.rpartition("/")[2])
        answer: web.StreamResponse = self.document(request) or await handler(request)
        return answer

    async def _describe(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize?tenant=main",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "authorization_response_iss_parameter_supported": True,
                **self.metadata_changes,
            }
        )

    async def _authorize(self, request: web.Request) -> web.Response:
        query = request.query
        right = {
            "tenant": "main",
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "code_challenge_method": "S256",
        }
        wrong = [name for name, value in right.items() if query.getall(name, []) != [value]]
        if wrong or "openid" not in query["scope"].split() or len(query["code_challenge"]) != 43:
            return web.Response(status=400, text=f"This is wrong: {', '.join(wrong) or 'scope or challenge'}")
        back = {"state": query["state"], "iss": self.issuer}
        if self.refuses:
            back |= {"error": self.refuses, "error_description": "<b>because</b>"}
        else:
            code = back["code"] = secrets.token_urlsafe(16)
            self._codes[code] = {"challenge": query["code_challenge"], "nonce": query["nonce"]}
        raise web.HTTPFound(URL(self.redirect_uri).with_query(back))

    async def _give(self, request: web.Request) -> web.Response:
        form = await request.post()
        if not self._is_client(request, dict(form)):
            return web.json_response({"error": "invalid_client"}, status=401)
        found = self._codes.pop(str(form.get("code")), None)
        verifier = str(form.get("code_verifier")).encode()
        if (
            found is None
            or form.get("redirect_uri") != self.redirect_uri
            or form.get("grant_type") != "authorization_code"
            or text_of(sha256(verifier).digest()) != found["challenge"]
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": self.client_id, "iat": now, "exp": now + 300, "nonce": found["nonce"]}
        claims |= self.person | self.changes
        claims = {name: value for name, value in claims.items() if value is not None}
        token = self.sign(claims, self.keys[-1])
        return web.json_response({"access_token": "opaque", "token_type": "Bearer", "id_token": token})

    def _is_client(self, request: web.Request, form: dict[str, Any]) -> bool:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            name, _, secret = b64decode(text).decode().partition(":")
            return (unquote_plus(name), unquote_plus(secret)) == (self.client_id, self.secret)
        return (form.get("client_id"), form.get("client_secret", "")) == (self.client_id, self.secret)

    async def _show_keys(self, _request: web.Request) -> web.Response:
        shown = [key.as_dict(private=False) for key in self.keys]
        others = [{"kty": "AKP", "kid": "of-tomorrow"}, {"kty": "RSA", "kid": "broken", "n": "*", "e": "AQAB"}]
        return web.json_response({"keys": [*others, *shown]})

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answer, in a thread of its own."""
        loop = asyncio.new_event_loop()
        runner = web.AppRunner(self.application(), shutdown_timeout=0)

        async def begin() -> None:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self.port).start()

        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


def openid_provider(public_url: str) -> OpenIdProvider:
    """A provider that is still to be started, for a gateway whose console is at ``public_url``."""
    return OpenIdProvider(free_port(), f"{public_url}/console/oidc/callback")
