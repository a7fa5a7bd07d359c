"""One provider's session, which is tuned for bodies that are large and late, and its connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TraceConfig
from yarl import URL

from proxy.domain.errors import NoConnectionLeft, NoCredentials
from proxy.machine.limits import SharedLimits, SharedSemaphore
from proxy.telemetry.metrics import Metrics
from proxy.upstream.auth.opening import open_auth
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
from proxy.upstream.provider import Addresses, Provider, TlsFiles
from proxy.upstream.watchdog import Watch

logger = logging.getLogger(__name__)

READ_BUFFER_BYTES = 65_536
ANSWER = AnswerLimits(READ_BUFFER_BYTES, header_bytes=2 * 65_536, headers_most=256)
"""An image that was drawn is not lost for its answer's policies and cookies."""

KEEP_ALIVE_S = 30.0
"""Shorter than what servers usually keep, so that a connection is seldom closed just as it is taken."""


def open_session(
    provider: Provider, tls: TlsFiles | None, trace_configs: Sequence[TraceConfig], headers: Mapping[str, str]
) -> ClientSession:
    """What talks HTTP with ``provider``, or with whom it refers to, by the same proxy and the same limits."""
    return ClientSession(
        # Its own limit would let requests wait without an end, and as if they waited for the provider.
        connector=WatchedConnector(
            limit=0, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=30, ssl=True if tls is None else tls.context()
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
        headers=headers,
    )


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
        constant, self.changing = open_auth(provider.name, provider.auth, self.dialect.authorize)
        self._addresses = Addresses(provider, self.dialect.own_paths, constant.query)
        self.url = self._addresses.of
        self._query = constant.query
        self.signs = provider.auth.signs
        self._connections: asyncio.Semaphore | SharedSemaphore = asyncio.Semaphore(provider.max_connections)
        # With traces on, the library writes the headers, for a trace's own is among them; it knows proxies as well.
        self._prepares = not (trace_configs or provider.proxy_url)
        self._headers: Mapping[str, str] | None = None
        self._heads: dict[URL, bytes] = {}
        self.session = open_session(
            provider,
            provider.tls,
            trace_configs,
            {
                "Accept": self.dialect.accepts,
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": "lightmeter",
                **constant.headers,
            },
        )

    def share_connections(self, limits: SharedLimits) -> None:
        """Have ``max_connections`` together with the other processes of this gateway."""
        self._connections = limits.semaphore(f"connections:{self.provider.name}", self.provider.max_connections)

    async def sign(self, url: URL, content_type: str, body_sha256: str) -> Mapping[str, str]:
        """The headers of a POST to ``url`` of a body with this hash, in hexadecimal. Raises NoCredentials."""
        signer = None if self.changing is None else (await self.changing.current()).signer
        if signer is None:
            raise NoCredentials
        return signer.sign(str(url), content_type, body_sha256)

    async def let_in(self, url: URL) -> tuple[URL, Mapping[str, str] | None]:
        """``url``, which its provider has named, and the headers of a request that it lets in. Raises NoCredentials."""
        if self.changing is None:
            return (url.extend_query(self._query) if self._query else url), None
        credentials = await self.changing.current()
        return (url.extend_query(credentials.query) if credentials.query else url), credentials.headers

    def payload(self, url: URL, body: bytes, headers: Mapping[str, str] | None = None) -> JsonPayload | PreparedPost:
        """What is sent to ``url``, with the session's headers and ``headers``."""
        if not self._prepares or len(body) > PREPARED_BYTES:
            return JsonPayload(body)
        if headers is not self._headers:
            # Those of other credentials are not sent any more.
            self._headers = headers
            self._heads.clear()
        head = self._heads.get(url)
        if head is None:
            head = self._heads[url] = make_head(url, {**self.session.headers, **(headers or {})})
        return PreparedPost(head, body)

    async def post(
        self, url: URL, payload: JsonPayload | PreparedPost, headers: Mapping[str, str] | None = None
    ) -> ClientResponse:
        """Send it; the answer has begun. A payload that is prepared has its headers already.

        Raises aiohttp.ClientError or OSError.
        """
        if isinstance(payload, PreparedPost):
            return await send_prepared(self.session, url, payload, ANSWER)
        return await self.session.post(url, data=payload, headers=headers, allow_redirects=False)

    async def close(self) -> None:
        """Close every connection."""
        if self.changing is not None:
            await self.changing.close()
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
