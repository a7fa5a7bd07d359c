"""What sends requests to one provider, or to whom it refers to: with the same headers, by the same connections."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Protocol

from multidict import CIMultiDict
from yarl import URL

from proxy.upstream.connection.connections import Connections
from proxy.upstream.connection.opening import Opener
from proxy.upstream.connection.request import HttpProxy, Route, header_lines, make_route
from proxy.upstream.connection.response import Response
from proxy.upstream.connection.upload import Upload

JOINED_BYTES = 65_536
"""A larger body is not copied to stand behind its head."""

ROUTES_MOST = 1_000
CONTENT_TYPE = "Content-Type"


class RequestTraces(Protocol):
    """What traces requests, each of which it is told of from the task that makes it."""

    def ask(self, method: str, url: URL) -> Mapping[str, str]:
        """A request begins; the headers that pass its trace on."""
        ...

    def answered(self, status: int) -> None:
        """Its answer has begun."""
        ...

    def not_answered(self, error: BaseException) -> None:
        """It has none."""
        ...


class HttpClient:
    """Speaks HTTP/1.1. Nothing is followed, kept or tried again: what comes is what was answered."""

    def __init__(
        self,
        headers: Mapping[str, str],
        connect_timeout_s: float,
        tls: ssl.SSLContext | None = None,
        proxy_url: str = "",
        traces: RequestTraces | None = None,
    ) -> None:
        """No connection is open yet; needs a running event loop. ``headers`` are those of every request.

        ``tls`` None believes whom the system believes.
        """
        loop = asyncio.get_running_loop()
        self.headers = CIMultiDict(headers)
        self._proxy = HttpProxy(proxy_url) if proxy_url else None
        self._connections = Connections(Opener(loop, connect_timeout_s, tls, self._proxy), loop)
        self._traces = traces
        self._routes: dict[URL, Route] = {}
        self._routes_headers: Mapping[str, str] | None = None

    @property
    def closed(self) -> bool:
        """Whether it can be used no more."""
        return self._connections.closed

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()

    async def post(self, url: URL, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
        """Send ``body``; the answer has begun. Raises ConnectFailed where nothing was sent, or AnswerBroken."""
        route = self._routes.get(url) if headers is self._routes_headers else None
        if route is None:
            route = self._remember(url, headers)
        if self._traces is not None:
            return await self._traced(self._traces, "POST", url, route, body)
        text = (route.text(body),) if len(body) <= JOINED_BYTES else (route.head_for(len(body)), body)
        sending = self._connections.send(route.origin, text)
        # What has been sent is not held until it is answered.
        del text, body
        return await sending

    async def post_upload(self, url: URL, upload: Upload, headers: Mapping[str, str]) -> Response:
        """Send a body that is read meanwhile, of which ``headers`` have the Content-Type; as ``post``."""
        route = make_route("POST", url, self._with(headers), self._proxy)
        if self._traces is not None:
            return await self._traced(self._traces, "POST", url, route, upload.size_bytes, upload)
        return await self._connections.send(route.origin, (route.head_for(upload.size_bytes),), upload)

    async def request(self, method: str, url: URL, headers: Mapping[str, str] | None = None) -> Response:
        """Send a request without a body; as ``post``."""
        sent = self._with(headers)
        sent.popall(CONTENT_TYPE, None)
        route = make_route(method, url, sent, self._proxy)
        if self._traces is not None:
            return await self._traced(self._traces, method, url, route, b"")
        head = route.head + b"\r\n" if method in ("GET", "HEAD") else route.head_for(0)
        return await self._connections.send(route.origin, (head,), expects_body=method != "HEAD")

    async def _traced(
        self,
        traces: RequestTraces,
        method: str,
        url: URL,
        route: Route,
        body: bytes | int,
        upload: Upload | None = None,
    ) -> Response:
        more = header_lines(traces.ask(method, url))
        try:
            if isinstance(body, int):
                text = route.head_for(body, more)
            else:
                text = route.head + more + b"\r\n" if method in ("GET", "HEAD") else route.text(body, more)
            sending = self._connections.send(route.origin, (text,), upload, expects_body=method != "HEAD")
            del text, body
            response = await sending
        except BaseException as error:
            traces.not_answered(error)
            raise
        traces.answered(response.status)
        return response

    def _remember(self, url: URL, headers: Mapping[str, str] | None) -> Route:
        if headers is not self._routes_headers or len(self._routes) >= ROUTES_MOST:
            # Those of other credentials are not sent any more.
            self._routes_headers = headers
            self._routes.clear()
        route = self._routes[url] = make_route("POST", url, self._with(headers), self._proxy)
        return route

    def _with(self, headers: Mapping[str, str] | None) -> CIMultiDict[str]:
        sent = self.headers.copy()
        sent.update(headers or {})
        return sent
