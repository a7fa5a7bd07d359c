"""One provider's session, which is tuned for bodies that are large and late, and its connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TraceConfig
from yarl import URL

from proxy.domain.errors import NoConnectionLeft
from proxy.telemetry.metrics import Metrics
from proxy.upstream.bodies.prepared import (
    PREPARED_BYTES,
    AnswerLimits,
    JsonPayload,
    PreparedPost,
    make_head,
    send_prepared,
)
from proxy.upstream.connector import WatchedConnector
from proxy.upstream.dialects import DIALECTS
from proxy.upstream.provider import Provider
from proxy.upstream.watchdog import Watch

logger = logging.getLogger(__name__)

READ_BUFFER_BYTES = 65_536
ANSWER = AnswerLimits(READ_BUFFER_BYTES, header_bytes=2 * 65_536, headers_most=256)
"""An image that was drawn is not lost for its answer's policies and cookies."""

KEEP_ALIVE_S = 30.0
"""Shorter than what servers usually keep, so that a connection is seldom closed just as it is taken."""


class ProviderClient:
    """One provider's session."""

    exchange_kind: type[Any] | None = None
    """What asks it in place of an ``Exchange``, and is one."""

    def __init__(
        self,
        provider: Provider,
        watch: Watch,
        metrics: Metrics,
        trace_configs: Sequence[TraceConfig] = (),
        *,
        shows_tokens: bool = False,
    ) -> None:
        """Open no connection yet; needs a running event loop. Clients see its token counts where ``shows_tokens``."""
        self.shows_tokens = shows_tokens
        self.provider = provider
        self.metrics = metrics
        self.in_use = 0
        self.watch = watch
        self.dialect = DIALECTS[provider.dialect]
        self._base_url = provider.base_url.rstrip("/")
        self._urls: dict[str, URL] = {}
        self._connections = asyncio.Semaphore(provider.max_connections)
        # With traces on, the library writes the headers, for a trace's own is among them; it knows proxies as well.
        self._prepares = not trace_configs and not provider.proxy_url
        self._heads: dict[URL, bytes] = {}
        self.session = ClientSession(
            # Its own limit would let requests wait without an end, and as if they waited for the provider.
            connector=WatchedConnector(
                limit=0,
                keepalive_timeout=KEEP_ALIVE_S,
                ttl_dns_cache=30,
                ssl=True if provider.tls is None else provider.tls.context(),
            ),
            proxy=provider.proxy_url or None,
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None, sock_connect=provider.connect_timeout_s),
            auto_decompress=False,
            trust_env=False,
            trace_configs=list(trace_configs),
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=ANSWER.header_bytes,
            max_field_size=ANSWER.header_bytes,
            max_headers=ANSWER.headers_most,
            headers={
                "Accept": "application/json, text/event-stream",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": "lightmeter",
                **self.dialect.authorize(provider.api_key),
            },
        )

    def payload(self, url: URL, body: bytes) -> JsonPayload | PreparedPost:
        """What is sent to ``url``, with the session's headers."""
        if not self._prepares or len(body) > PREPARED_BYTES:
            return JsonPayload(body)
        head = self._heads.get(url)
        if head is None:
            head = self._heads[url] = make_head(url, self.session.headers)
        return PreparedPost(head, body)

    async def post(self, url: URL, payload: JsonPayload | PreparedPost) -> ClientResponse:
        """Send it; the answer has begun. Raises aiohttp.ClientError or OSError."""
        if isinstance(payload, PreparedPost):
            return await send_prepared(self.session, url, payload, ANSWER)
        return await self.session.post(url, data=payload, allow_redirects=False)

    async def close(self) -> None:
        """Close every connection."""
        await self.session.close()

    async def take_connection(self) -> float:
        """Take one of ``max_connections``, within ``pool_timeout_s``; the seconds that it took.

        Raises NoConnectionLeft.
        """
        self.in_use += 1
        began = perf_counter()
        try:
            if not self._connections.locked():
                await self._connections.acquire()
                return 0.0
            async with asyncio.timeout(self.provider.pool_timeout_s):
                await self._connections.acquire()
        except TimeoutError:
            self.in_use -= 1
            logger.warning(
                "all %d connections to provider %s are in use: raise its max_connections",
                self.provider.max_connections,
                self.provider.name,
            )
            raise NoConnectionLeft(
                "All of this gateway's connections to the provider are in use; nothing was charged. Try again."
            ) from None
        except BaseException:
            self.in_use -= 1
            raise
        return perf_counter() - began

    def give_connection_back(self) -> None:
        """The next request may have it."""
        self.in_use -= 1
        self._connections.release()

    def url(self, path: str) -> URL:
        """Where ``path`` is, below the provider's base URL."""
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._base_url + path)
        return url
