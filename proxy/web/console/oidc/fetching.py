"""Requests to an OpenID provider: with a time-out, with bounded answers, and to nowhere that it sends us."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import aiohttp
import orjson

from proxy.web.console.oidc.refusal import SignInRefused, shown

TIMEOUT_S = 10.0
ANSWER_BYTES_LIMIT = 2**19
"""Of a provider's description of itself, its keys, or its tokens; real ones have some thousand bytes."""

CHUNK_BYTES = 2**14
# Plain, for the bound is on what arrives.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


class Unreachable(SignInRefused):
    """No answer, or none that can be used."""


class Fetcher:
    """Asks a provider for JSON."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        """Each request may take ``timeout_s``, from looking up its host to the last byte."""
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str) -> dict[str, Any]:
        """The document at ``url``. Raises Unreachable."""
        status, document = await self._ask("GET", url, _HEADERS, None)
        if status != HTTPStatus.OK:
            raise Unreachable(f"The OpenID provider answers {status} at {shown(url)}.")
        return document

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """The status and the document that answer ``form``. Raises Unreachable."""
        return await self._ask("POST", url, {**_HEADERS, **headers}, form)

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> tuple[int, dict[str, Any]]:
        session = self._open()
        try:
            async with session.request(method, url, data=form, headers=headers, allow_redirects=False) as response:
                if response.status in range(HTTPStatus.MULTIPLE_CHOICES, HTTPStatus.BAD_REQUEST):
                    place = shown(response.headers.get("Location", "nowhere"))
                    raise Unreachable(
                        f"The OpenID provider sends from {shown(url)} to {place}, and is not followed: "
                        "admin.oidc.issuer has to be the address that it gives itself."
                    )
                body = await _read(response.content, url)
        except TimeoutError:
            raise Unreachable(f"The OpenID provider does not answer within {self._timeout_s:g} s at {url}.") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(f"The OpenID provider cannot be reached at {url} ({type(error).__name__}).") from None
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise Unreachable(f"The OpenID provider answers {response.status} without a JSON object at {url}.")
        return response.status, document

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Certificates from SSL_CERT_FILE as well. No cookies: nobody is signed in by them.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(), limit=20),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                auto_decompress=False,
            )
        return self._session


async def _read(content: aiohttp.StreamReader, url: str) -> bytes:
    body = bytearray()
    async for chunk in content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > ANSWER_BYTES_LIMIT:
            raise Unreachable(f"The OpenID provider sends more than {ANSWER_BYTES_LIMIT} bytes at {url}.")
    return bytes(body)
