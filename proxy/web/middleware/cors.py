"""Cross-origin requests: what a page on another origin may read of the public API (https://fetch.spec.whatwg.org/).

Only origins that the configuration lists, and never with credentials: a page sends its key itself, as any client does.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from proxy.web.middleware.common_headers import ANY_ORIGIN, ATTEMPTS
from proxy.web.server.openapi import HEADERS

METHODS = "GET, HEAD, POST"
PREFLIGHT_AGE_S = 3_600
EXPOSED = ", ".join((*HEADERS, ATTEMPTS))
"""Every header of the API: a page may read few others than those that are listed."""

NAMES_LENGTH_LIMIT = 4_096
PLAIN_NAMES = "Authorization, Content-Type"

_names = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*", re.ASCII)


class Cors:
    """Which origins may call, and the headers that tell browsers so."""

    def __init__(self, origins: Iterable[str]) -> None:
        """Let pages on ``origins`` call, or on any where one of them is ``*``."""
        self._origins = frozenset(origins)
        self._lets_any = ANY_ORIGIN in self._origins

    def add_to(self, app: web.Application) -> None:
        """Tell it in every answer of ``app``, also in errors and streams."""
        app.on_response_prepare.append(self._let_it_be_read)

    def middleware(self) -> Middleware:
        """What answers preflights; it stands before whatever asks for a key, since browsers send none."""

        # No coroutine of its own: every other request would pay for one.
        @web.middleware
        def answer_preflight(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
            if request.method != hdrs.METH_OPTIONS or not self._is_preflight(request):
                return handler(request)
            return _allow(request)

        return answer_preflight

    def _is_preflight(self, request: web.Request) -> bool:
        asked = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        return asked and self._allowed_origin(request) is not None

    def _allowed_origin(self, request: web.Request) -> str | None:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None:
            return None
        if self._lets_any:
            return ANY_ORIGIN
        return origin if origin in self._origins else None

    async def _let_it_be_read(self, request: web.Request, response: web.StreamResponse) -> None:
        # Also where no origin was sent: a cache on the way would give that answer to a page.
        response.headers[hdrs.VARY] = hdrs.ORIGIN
        origin = self._allowed_origin(request)
        if origin is not None:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED


async def _allow(request: web.Request) -> web.StreamResponse:
    # Those that are asked for: SDKs send some twenty of their own, and '*' would not cover Authorization.
    asked = ", ".join(request.headers.getall(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, ()))
    is_good = len(asked) <= NAMES_LENGTH_LIMIT and _names.fullmatch(asked) is not None
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: asked if is_good else PLAIN_NAMES,
        hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_AGE_S),
    }
    return web.Response(status=204, headers=headers)
