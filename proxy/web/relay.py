"""Passing a provider's answer on to the client, piece by piece."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from time import perf_counter

from aiohttp import ClientError, web

from proxy.domain.answers.answer import EVENT_STREAM, Answer
from proxy.domain.answers.holder import error_event
from proxy.domain.billing.settlement import Delivery
from proxy.domain.errors import ClientGone, ProviderRefusal, ProxyError, UpstreamTruncated, UpstreamUncertain
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.parsing.server_sent_events import KEEP_ALIVE
from proxy.domain.requests.idempotency import AnswerKeeper
from proxy.telemetry.observation import Observation
from proxy.upstream.exchange import Exchange
from proxy.upstream.failover import Failover
from proxy.web.even_parts import EvenParts
from proxy.web.keep_alive import KeepAlive
from proxy.web.middleware.common_headers import ATTEMPTS, common_headers

logger = logging.getLogger(__name__)


IMAGES_MOST_LEAST = 16
"""A provider that makes a few more than were asked for is no fault."""


class StreamedResponse(web.StreamResponse):
    """An answer that keeps its end back until whoever returns it has settled.

    It goes out in chunks. The provider's length says nothing about this one: what is left out may be of any size, and
    is not known when the headers are sent.
    """

    def __init__(self, headers: dict[str, str]) -> None:
        """How long a client may take is its connection's affair."""
        super().__init__(headers=headers)
        self._ended = False
        self.end = b""

    async def pass_on(self, piece: bytes) -> None:
        """Send a piece."""
        await self.write(piece)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the end; again, nothing."""
        if self._ended:
            return
        self._ended = True
        end, self.end = self.end + data, b""
        await super().write_eof(end)


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """How long a client may read nothing before it is let go, and a stream be silent before a comment; in seconds.

    An answer has at most ``overage_images`` times the images that were asked for, or 16 where that is more.
    """

    write_timeout_s: float
    keep_alive_s: float
    overage_images: int = 4

    def images_most(self, n: int) -> int:
        """How many images may come, and be charged, where ``n`` were asked for."""
        return max(self.overage_images * n, IMAGES_MOST_LEAST)


class Relay:
    """One answer on its way to one client, who may leave; the provider's answer is read to its end all the same."""

    _exchange: Exchange

    def __init__(
        self,
        request: web.Request,
        observation: Observation,
        upstream: Exchange | Failover,
        limits: RelayLimits,
        delivery: Delivery,
        *,
        images_most: int,
    ) -> None:
        """Answer ``request`` with what comes from ``upstream``, within ``limits``; ``delivery`` says what came.

        An answer that flows is broken off after ``images_most`` images, and no more are charged of any.
        """
        self._delivery = delivery
        self._images_most = images_most
        self._keeper: AnswerKeeper | None = None
        self._request = request
        self._observation = observation
        self._upstream = upstream
        self._limits = limits
        self._response: StreamedResponse | None = None
        self._answer: Answer | None = None
        self._keep_alive: KeepAlive | None = None
        self._preparing = asyncio.Lock()
        self._client_gone = False

    async def answer(self) -> web.StreamResponse:
        """Ask upstream and pass its answer on."""
        if self._delivery.terms.kept_answer_bytes:
            self._keeper = AnswerKeeper(self._delivery.terms.kept_answer_bytes)
        async with self._upstream as self._exchange:
            return await self._pass_on(self._exchange.answer())

    async def stream(self) -> web.StreamResponse:
        """The same for a client that has asked for events.

        Its comments may come before the provider has said anything; an error after that is an event. No stream is kept
        to be given again.
        """
        try:
            self._keep_alive = KeepAlive(self._limits.keep_alive_s, self._send_comment)
            async with self._keep_alive, self._upstream as self._exchange:
                return await self._pass_on(self._exchange.answer())
        except ProxyError as error:
            return self._write_error(error)
        except BaseException:
            if self._response is not None:
                self._abort()
            raise

    async def _pass_on(self, answer: Answer) -> web.StreamResponse:
        """Send what ``answer`` lets through.

        The end is sent by whoever called, after the settlement: an answer that is whole has been charged.
        """
        self._answer = answer
        try:
            await self._pass_pieces(answer)
            whole = answer.finish()
            if self._keeper is not None:
                self._keeper.add(whole)
        except (MalformedResponse, ProxyError) as error:
            answer.break_off()
            if isinstance(error, ProviderRefusal) and not answer.images:
                self._delivery.provider_usage = answer.usage
                self._delivery.end_by(error)
            else:
                self._end(answer, complete=False)
            return self._break_off(error)
        except BaseException:
            # By the watchdog, at the end of the process or by a fault of ours: these images have been made.
            answer.break_off()
            self._end(answer, complete=False)
            if self._response is not None and self._keep_alive is None:
                self._abort()
            raise
        self._end(answer, complete=answer.whole)
        if self._response is None:
            return self._whole(whole, answer.content_type)
        self._observation.response_bytes += len(whole)
        self._response.end += whole
        return self._response

    async def _pass_pieces(self, answer: Answer) -> None:
        keeper, parts = self._keeper, EvenParts(answer.feed)
        while piece := await self._exchange.read():
            for passed in parts.read(piece):
                if keeper is not None:
                    keeper.add(passed)
                if passed and not self._client_gone:
                    await self._send(passed, is_last=answer.complete)
                if answer.images > self._images_most:
                    raise MalformedResponse(f"it has more than {self._images_most} images")
                if parts.is_turn_due:
                    await asyncio.sleep(0)

    async def _send(self, piece: bytes, *, is_last: bool) -> None:
        began = perf_counter()
        self._exchange.watchdog.phase(self._limits.write_timeout_s, self._abort, counted=False)
        try:
            response = self._response or await self._begin()
            if is_last:
                response.end = piece
            else:
                await response.pass_on(piece)
            self._observation.response_bytes += len(piece)
        except (ConnectionError, ClientError):
            self._client_gone = True
        finally:
            waited_s = perf_counter() - began
            self._observation.client_s += waited_s
            self._exchange.watchdog.grant(waited_s)
            if self._keep_alive is not None:
                self._keep_alive.touch()

    async def _send_comment(self) -> None:
        comment = KEEP_ALIVE if self._answer is None else self._answer.comment
        transport = self._request.transport
        # A client that has not read what was sent before is not waiting.
        if not comment or transport is None or transport.get_write_buffer_size():
            return
        try:
            response = self._response or await self._begin()
            await response.pass_on(comment)
        except (ConnectionError, ClientError):
            self._client_gone = True

    async def _begin(self) -> StreamedResponse:
        async with self._preparing:
            if self._response is not None:
                return self._response
            if self._request.transport is None:
                raise ConnectionResetError("the client has left")
            answer = self._answer
            kind = EVENT_STREAM if answer is None else answer.content_type
            headers = {**_headers(kind), **common_headers(self._observation)}
            if answer is None:
                # Another deployment may yet be asked: no number is better than one that turns out wrong.
                headers.pop(ATTEMPTS, None)
            response = StreamedResponse(headers)
            await response.prepare(self._request)
            self._response = response
            return response

    def _whole(self, body: bytes, content_type: str) -> web.Response:
        self._observation.response_bytes = len(body)
        return web.Response(body=body, headers=_headers(content_type))

    def _end(self, answer: Answer, *, complete: bool) -> None:
        delivery = self._delivery
        self._exchange.is_whole = complete
        delivery.body = None if self._keeper is None else self._keeper.body
        delivery.images, delivery.provider_usage = min(answer.images, self._images_most), answer.usage
        delivery.sizes = tuple(answer.sizes[: delivery.images])
        delivery.end(complete=complete, client_gone=self._client_gone or self._request.transport is None)

    def _break_off(self, error: Exception) -> web.StreamResponse:
        """Never end a body that is not whole as if it were: an error where there is still time, else a cut."""
        delivery = self._delivery
        logger.warning(
            "%s: the answer of provider %s: %s", self._observation.request_id, delivery.served.provider, error
        )
        if self._response is not None and self._keep_alive is None:
            self._abort()
            return self._response
        if delivery.images:
            raise UpstreamTruncated(
                f"The provider's answer broke off after {delivery.images} complete image(s), which are charged."
            ) from error
        if isinstance(error, ProxyError):
            raise error
        raise UpstreamUncertain("The provider's answer is not an images response; nothing was charged.") from error

    def _write_error(self, error: ProxyError) -> web.StreamResponse:
        """Write an error into the stream where that has begun, and settle by it."""
        response = self._response
        if response is None or isinstance(error, ClientGone):
            raise error
        self._delivery.end_by(error)
        self._observation.error = error.code
        written = error_event(error) if self._answer is None else self._answer.write_error(error)
        if written is None:
            self._abort()
        else:
            response.end = written
        return response

    def _abort(self) -> None:
        self._client_gone = True
        if self._request.transport is not None:
            self._request.transport.abort()


def _headers(content_type: str) -> dict[str, str]:
    headers = {"Content-Type": content_type}
    if content_type == EVENT_STREAM:
        # Or proxies on the way would gather what should flow.
        headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return headers
