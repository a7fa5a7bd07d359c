"""One provider: where it is asked, who is let in there, and how many connections to it may be in use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from yarl import URL

from proxy.domain.errors import NoConnectionLeft, NoCredentials
from proxy.machine.limits import SharedLimits, SharedSemaphore
from proxy.telemetry.metrics import Metrics
from proxy.upstream.auth.opening import open_auth
from proxy.upstream.connection.client import HttpClient, RequestTraces
from proxy.upstream.dialects import DIALECTS
from proxy.upstream.provider import Addresses, Provider, TlsFiles
from proxy.upstream.watchdog import Watch

logger = logging.getLogger(__name__)


def open_client(
    provider: Provider, tls: TlsFiles | None, traces: RequestTraces | None, headers: Mapping[str, str]
) -> HttpClient:
    """What talks HTTP with ``provider``, or with whom it refers to, by the same proxy and the same limits."""
    context = None if tls is None else tls.context()
    return HttpClient(headers, provider.connect_timeout_s, context, provider.proxy_url, traces)


class ProviderClient:
    """One provider."""

    exchange_kind: type[Any] | None = None
    """What asks it in place of an ``Exchange``, and is one."""

    def __init__(
        self,
        provider: Provider,
        watch: Watch,
        metrics: Metrics,
        traces: RequestTraces | None = None,
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
        self.http = open_client(
            provider,
            provider.tls,
            traces,
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

    async def close(self) -> None:
        """Close every connection."""
        if self.changing is not None:
            await self.changing.close()
        self.http.close()

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
