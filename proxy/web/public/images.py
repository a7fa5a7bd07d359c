"""``POST /v1/images/…`` and ``/v1/chat/completions``: to the provider and back, in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from aiohttp import web

from proxy.domain.errors import (
    ClientGone,
    IdempotencyInProgress,
    IdempotencyMismatch,
    IdempotencyResponseGone,
    InsufficientQuota,
    ModelNotAllowed,
    ModelNotFound,
    ProviderRefusal,
    RateLimitExceeded,
    ShuttingDown,
    UpstreamError,
    UpstreamRateLimit,
    UpstreamTimeout,
)
from proxy.domain.people import TAGS_HEADER
from proxy.domain.requests.chat import CHAT as CHAT_FIELDS
from proxy.domain.requests.chat import ChatRequest
from proxy.domain.requests.edit import EDIT, EDIT_FORM, VARIATION_FORM
from proxy.domain.requests.idempotency import HEADER
from proxy.domain.requests.image import GENERATION
from proxy.telemetry.observation import OBSERVATION
from proxy.upstream.exchange import Exchange
from proxy.upstream.failover import Failover
from proxy.upstream.fallback import Fallback
from proxy.upstream.pool import Pool, is_side_by_side
from proxy.upstream.side_by_side import SideBySide
from proxy.web.middleware.metering import METERED
from proxy.web.public.wire import ChatAnswer, ImagesAnswer
from proxy.web.relay import Relay, RelayLimits
from proxy.web.server.routes import Access, Route

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"
VARIATIONS = "/v1/images/variations"
CHAT = "/v1/chat/completions"
FORWARDING_ERRORS = (
    ModelNotAllowed,
    ModelNotFound,
    IdempotencyInProgress,
    IdempotencyResponseGone,
    IdempotencyMismatch,
    InsufficientQuota,
    RateLimitExceeded,
    ProviderRefusal,
    UpstreamRateLimit,
    UpstreamError,
    UpstreamTimeout,
    ShuttingDown,
)


class ImageRoutes:
    """Handlers of what makes images; the metering middleware has admitted what comes here."""

    def __init__(self, pool: Pool, limits: RelayLimits, *, finish_for_nobody: bool) -> None:
        """Forward to the providers of ``pool``, and pass answers on within ``limits``.

        Where a client has left, its images are made to the end if ``finish_for_nobody``; else the provider is stopped.
        """
        self._finish_for_nobody = finish_for_nobody
        self._pool = pool
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        forwarded = partial(
            Route,
            method="POST",
            access=Access.KEY,
            headers=(HEADER, TAGS_HEADER),
            errors=FORWARDING_ERRORS,
        )
        images, chat = {200: ImagesAnswer}, {200: ChatAnswer}
        return (
            forwarded(path=GENERATIONS, handler=self.generate, answers=images, body=GENERATION, streams=True),
            forwarded(path=EDITS, handler=self.edit, answers=images, body=EDIT, form=EDIT_FORM, streams=True),
            forwarded(path=VARIATIONS, handler=self.vary, answers=images, form=VARIATION_FORM),
            forwarded(path=CHAT, handler=self.chat, answers=chat, body=CHAT_FIELDS, streams=True),
        )

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Forward a generation and pass its answer on while it arrives; with ``stream``, as server-sent events."""
        return await self._serve(request)

    async def edit(self, request: web.Request) -> web.StreamResponse:
        """Forward an edit of images, uploaded in a form or referred to in JSON, and pass its answer on."""
        return await self._serve(request)

    async def vary(self, request: web.Request) -> web.StreamResponse:
        """Forward a variation of an uploaded image, and pass its answer on."""
        return await self._serve(request)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Forward a chat that may be answered with images; with ``stream``, as server-sent events."""
        return await self._serve(request)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        # aiohttp holds a request until its connection's next one is there, and this may hold megabytes of images.
        metered, observation = request.pop(METERED), request[OBSERVATION]
        if request.transport is None:
            raise ClientGone
        asked, model, delivery = metered.asked, metered.model, metered.delivery

        def client_left() -> bool:
            return request.transport is None

        n = 1 if isinstance(asked, ChatRequest) else asked.n or model.default_n
        upstream: Exchange | Failover | SideBySide | Fallback
        if delivery.fallbacks:
            upstream = self._pool.ask_one_of(asked, model, n, delivery, observation, client_left)
        elif is_side_by_side(asked, model, n):
            upstream = self._pool.ask_side_by_side(asked, model, n, delivery.served, observation, client_left)
        else:
            upstream = self._pool.ask(asked, model, delivery.served, observation, client_left)
        if not self._finish_for_nobody:
            upstream.end_when(client_left)
        images_most = self._limits.images_most(n)
        relay = Relay(
            request, observation, upstream, self._limits, delivery, is_stream=asked.stream, images_most=images_most
        )
        return await relay.answer()
