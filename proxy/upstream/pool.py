"""Connections to providers: one client session each, tuned for passing on bodies that are large and late.

The library's errors end here; what leaves is of ``domain.errors``. A POST is never sent twice: a connection that breaks
after the request may have been sent is an error, for the provider may be at work on it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from time import perf_counter

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from yarl import URL

from proxy.domain.catalog import Model
from proxy.domain.errors import (
    ProxyError,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from proxy.domain.image_request import ImageRequest
from proxy.domain.settlement import Delivery
from proxy.telemetry.observation import Observation
from proxy.upstream.dialects import DIALECTS
from proxy.upstream.provider import Provider
from proxy.upstream.watchdog import Watchdog

logger = logging.getLogger(__name__)

READ_BUFFER_BYTES = 65_536
ERROR_BODY_BYTES = 65_536
KEEP_ALIVE_S = 30.0
"""Shorter than what servers usually keep, so that a connection is seldom closed just as it is taken."""


class Answer:
    """A provider's 2xx answer, its body not read yet."""

    __slots__ = ("_max_bytes", "_observation", "_response", "_watchdog", "idle_timeout_s")

    def __init__(
        self, response: ClientResponse, provider: Provider, watchdog: Watchdog, observation: Observation
    ) -> None:
        """Read ``response`` within the provider's limits."""
        self._response = response
        self._watchdog = watchdog
        self._observation = observation
        self._max_bytes = provider.max_response_bytes
        self.idle_timeout_s = provider.idle_timeout_s

    @property
    def watchdog(self) -> Watchdog:
        """The time limits of the exchange, for whoever else has to wait in it."""
        return self._watchdog

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises UpstreamError or UpstreamTimeout where it breaks off, or is too long."""
        content, observation, watchdog = self._response.content, self._observation, self._watchdog
        size = 0
        while True:
            began = perf_counter()
            watchdog.phase(self.idle_timeout_s, self._idle_too_long)
            try:
                piece = await content.readany()
            except (aiohttp.ClientError, OSError) as error:
                raise UpstreamError("The provider's answer broke off.") from error
            finally:
                observation.provider_s += perf_counter() - began
            if not piece:
                return
            size += len(piece)
            if size > self._max_bytes:
                raise UpstreamError(f"The provider's answer is longer than {self._max_bytes:,} bytes.")
            yield piece

    def _idle_too_long(self) -> None:
        self._watchdog.interrupt(UpstreamTimeout("The provider took too long to send its answer."))


class ProviderClient:
    """One provider's session."""

    def __init__(self, provider: Provider) -> None:
        """Open no connection yet; needs a running event loop."""
        self.provider = provider
        self.dialect = DIALECTS[provider.dialect]
        self._base_url = provider.base_url.rstrip("/")
        self._urls: dict[str, URL] = {}
        self._session = ClientSession(
            connector=TCPConnector(
                limit=provider.max_connections, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=30, force_close=False
            ),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None, sock_connect=provider.connect_timeout_s),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BUFFER_BYTES,
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": "lightmeter",
                **self.dialect.authorize(provider.api_key),
            },
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    @asynccontextmanager
    async def generate(
        self, request: ImageRequest, model: Model, delivery: Delivery, observation: Observation
    ) -> AsyncIterator[Answer]:
        """Ask for images. Raises what ``Dialect.read_refusal`` says, or UpstreamUnreachable, -Error or -Timeout."""
        provider = self.provider
        delivery.provider = provider.name
        body = self.dialect.write_generation(request, model)
        url = self._url(self.dialect.generations_path(model))
        async with Watchdog(provider.total_timeout_s) as watchdog:
            watchdog.phase(provider.first_byte_timeout_s, lambda: watchdog.interrupt(self._too_late()))
            began = perf_counter()
            try:
                response = await self._session.post(url, data=body, allow_redirects=False)
            except aiohttp.ConnectionTimeoutError as error:
                raise self._unreachable(error) from error
            except aiohttp.ClientConnectorError as error:
                raise self._unreachable(error) from error
            except (aiohttp.ClientError, OSError) as error:
                logger.warning("provider %s broke the connection: %r", provider.name, error)
                raise UpstreamError("The provider closed the connection without an answer.") from error
            finally:
                observation.provider_s += perf_counter() - began
            try:
                delivery.provider_status = response.status
                if not response.ok or response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise await self._refusal(response, watchdog)
                yield Answer(response, provider, watchdog, observation)
            finally:
                # Gives the connection back where the body was read to its end, and closes it where it was not.
                response.close() if not response.content.at_eof() else response.release()

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._base_url + path)
        return url

    def _too_late(self) -> UpstreamTimeout:
        return UpstreamTimeout(f"The provider did not answer within {self.provider.first_byte_timeout_s:g} seconds.")

    def _unreachable(self, error: Exception) -> UpstreamUnreachable:
        logger.warning("provider %s cannot be reached: %s", self.provider.name, error)
        return UpstreamUnreachable("The provider cannot be reached; nothing was charged.")

    async def _refusal(self, response: ClientResponse, watchdog: Watchdog) -> ProxyError:
        watchdog.phase(self.provider.idle_timeout_s, lambda: watchdog.interrupt(self._too_late()))
        try:
            body = await response.content.read(ERROR_BODY_BYTES)
        except (aiohttp.ClientError, OSError):
            body = b""
        error = self.dialect.read_refusal(response.status, response.headers, body)
        if isinstance(error, UpstreamMisconfigured):
            logger.error(
                "provider %s answers %d: check its base_url, its upstream_model and the key in its api_key_env",
                self.provider.name,
                response.status,
            )
        return error


class Pool:
    """All providers."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        """One client for each; needs a running event loop."""
        self._clients = {provider.name: ProviderClient(provider) for provider in providers}

    def client_for(self, model: Model) -> ProviderClient:
        """The provider that makes this model's images."""
        return self._clients[model.provider]

    async def close(self) -> None:
        """Close every connection to every provider."""
        for client in self._clients.values():
            await client.close()
