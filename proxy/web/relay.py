"""Passing a provider's answer on to the client, piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from time import perf_counter

import orjson
from aiohttp import ClientError, web
from aiohttp.http import StreamWriter
from aiohttp.http_writer import SKIP_WRITELINES

from proxy.domain.answers.answer import EVENT_STREAM, JSON, Answer
from proxy.domain.answers.holder import error_event
from proxy.domain.billing.settlement import Delivery
from proxy.domain.errors import (
    ClientGone,
    ProviderRefusal,
    ProxyError,
    UpstreamRateLimit,
    UpstreamTruncated,
    UpstreamUncertain,
)
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.parsing.server_sent_events import KEEP_ALIVE
from proxy.domain.requests.idempotency import AnswerKeeper
from proxy.telemetry.observation import Observation
from proxy.upstream.errors.failures import error_told
from proxy.upstream.exchange import Exchange
from proxy.upstream.failover import Failover
from proxy.upstream.fallback import Fallback
from proxy.upstream.side_by_side import SideBySide
from proxy.web.even_parts import EvenParts
from proxy.web.keep_alive import KeepAlive
from proxy.web.middleware.common_headers import ATTEMPTS, common_headers
from proxy.web.whole_answer import WholeAnswer

logger = logging.getLogger(__name__)


COPIED_BYTES = 16_384
"""A smaller piece is copied to stand in one chunk with its frame."""

_CHUNK_END = b"\r\n"
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
        self._ended = self._has_begun = False
        self.end = b""

    async def pass_on(self, piece: bytes) -> None:
        """Send a piece."""
        self._has_begun = True
        await self.write(piece)

    def put(self, piece: bytes) -> bool:
        """Send a large piece of an answer that flows, without a copy; false where it was not sent."""
        writer = self._payload_writer
        if len(piece) < COPIED_BYTES or not self._has_begun or not isinstance(writer, StreamWriter):
            return False
        protocol, transport = writer.protocol, writer.transport
        if protocol.writing_paused or not writer.chunked or transport is None or transport.is_closing():
            return False
        size = b"%x\r\n" % len(piece)
        writer.output_size += len(size) + len(piece) + len(_CHUNK_END)
        if SKIP_WRITELINES and isinstance(transport, asyncio.Transport):
            # asyncio's own copies lines too, or does not report what it leaves unsent (CVE-2024-12254). uvloop's does.
            transport.write(b"".join((size, piece, _CHUNK_END)))
        else:
            transport.writelines((size, piece, _CHUNK_END))
        return True

    @property
    def is_unread(self) -> bool:
        """Whether more waits for the client than is good."""
        writer = self._payload_writer
        return isinstance(writer, StreamWriter) and writer.protocol.writing_paused

    async def catch_up(self) -> None:
        """Wait until the client has read what waits for it. Raises ConnectionError."""
        if isinstance(self._payload_writer, StreamWriter):
            await self._payload_writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the end; again, nothing."""
        if self._ended:
            return
        self._ended = True
        end, self.end = self.end + data, b""
        await super().write_eof(end)


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """How long a client may read nothing before it is let go, in seconds.

    A stream that is silent for ``keep_alive_s`` gets a comment, a JSON answer that has not begun for
    ``json_keep_alive_s`` a blank; 0 sends none. An answer has at most ``overage_images`` times the images that were
    asked for, or 16 where that is more.
    """

    write_timeout_s: float
    keep_alive_s: float
    json_keep_alive_s: float = 0
    overage_images: int = 4

    def images_most(self, n: int) -> int:
        """How many images may come, and be charged, where ``n`` were asked for."""
        return max(self.overage_images * n, IMAGES_MOST_LEAST)


class Relay:
    """One answer on its way to one client, who may leave; the provider's answer is read to its end all the same."""

    _exchange: Exchange | SideBySide

    def __init__(
        self,
        request: web.Request,
        observation: Observation,
        upstream: Exchange | Failover | SideBySide | Fallback,
        limits: RelayLimits,
        delivery: Delivery,
        *,
        is_stream: bool,
        images_most: int,
    ) -> None:
        """Answer ``request`` with what comes from ``upstream``, within ``limits``; ``delivery`` says what came.

        The client has asked for events where ``is_stream``. An answer that flows is broken off after ``images_most``
        images, and no more are charged of any.
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
        self._is_stream = is_stream
        # Whether any of the answer itself has been sent: an error has no place in JSON after that.
        self._is_flowing = False
        interval_s = limits.keep_alive_s if is_stream else limits.json_keep_alive_s
        self._keep_alive = KeepAlive(interval_s, self._send_sign_of_life) if interval_s else None
        self._preparing: asyncio.Lock | None = None
        self._client_gone = False
        # An answer that its provider left in its middle, closed after what was complete.
        self._closed: web.StreamResponse | None = None

    async def answer(self) -> web.StreamResponse:
        """Ask upstream and pass its answer on.

        Signs of life may be sent before the provider has said anything; an error after that stands in the answer. No
        stream is kept to be given again.
        """
        if self._delivery.terms.kept_answer_bytes and not self._is_stream:
            self._keeper = AnswerKeeper(self._delivery.terms.kept_answer_bytes)
        try:
            if self._keep_alive is None:
                return await self._ask()
            async with self._keep_alive:
                return await self._ask()
        except ProxyError as error:
            return await self._write_error(error)
        except BaseException:
            if self._response is not None:
                self._abort()
            raise

    async def _ask(self) -> web.StreamResponse:
        async with self._upstream as self._exchange:
            return await self._pass_on(await self._exchange.answer())

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
            if isinstance(error, MalformedResponse) and not answer.images and isinstance(self._exchange, Exchange):
                error = error_told(self._exchange.said) or error
            if isinstance(error, ProviderRefusal | UpstreamRateLimit) and not answer.images:
                self._delivery.provider_usage = answer.usage
                self._delivery.end_by(error)
            else:
                self._end(answer, complete=False)
            return self._break_off(error)
        except BaseException as error:
            # By the watchdog, at the end of the process or by a fault of ours: these images have been made.
            answer.break_off()
            self._end(answer, complete=False)
            if not self._is_stream and isinstance(error, asyncio.CancelledError):
                self._closed = self._close()
            if self._is_flowing and not self._is_stream and self._closed is None:
                self._abort()
            raise
        self._end(answer, complete=answer.whole)
        return self._send_end(whole, answer.content_type)

    def _send_end(self, rest: bytes, content_type: str) -> web.StreamResponse:
        self._observation.response_bytes += len(rest)
        if self._response is None:
            return WholeAnswer(rest, _headers(content_type))
        self._response.end += rest
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
        response = self._response
        is_sent = response is not None and not is_last and response.put(piece)
        if is_sent and response is not None:
            self._is_flowing = True
            self._observation.response_bytes += len(piece)
            if not response.is_unread:
                if self._keep_alive is not None:
                    self._keep_alive.touch()
                return
        began = perf_counter()
        self._exchange.watchdog.phase(self._limits.write_timeout_s, self._abort, counted=False)
        try:
            response = response or await self._begin()
            if is_sent:
                await response.catch_up()
                return
            self._is_flowing = True
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

    async def _send_sign_of_life(self) -> None:
        """A comment where that may stand in a stream, or a blank before JSON (RFC 8259 section 2)."""
        if self._is_stream:
            sign = KEEP_ALIVE if self._answer is None else self._answer.comment
        else:
            sign = b"" if self._is_flowing else b" "
        transport = self._request.transport
        # A client that has not read what was sent before is not waiting.
        if not sign or transport is None or transport.get_write_buffer_size():
            return
        try:
            response = self._response or await self._begin()
            await response.pass_on(sign)
        except (ConnectionError, ClientError):
            self._client_gone = True

    async def _begin(self) -> StreamedResponse:
        self._preparing = self._preparing or asyncio.Lock()
        async with self._preparing:
            if self._response is not None:
                return self._response
            if self._request.transport is None:
                raise ConnectionResetError("the client has left")
            answer = self._answer
            kind = EVENT_STREAM if self._is_stream else JSON
            headers = {**_headers(kind), **common_headers(self._observation)}
            if answer is None:
                # Another deployment may yet be asked: no number is better than one that turns out wrong.
                headers.pop(ATTEMPTS, None)
            response = StreamedResponse(headers)
            await response.prepare(self._request)
            self._response = response
            return response

    def _end(self, answer: Answer, *, complete: bool) -> None:
        delivery = self._delivery
        self._exchange.is_whole = complete
        self._exchange.failure = answer.failure
        delivery.body = self._keeper.body if self._keeper is not None and complete else None
        delivery.images, delivery.provider_usage = min(answer.images, self._images_most), answer.usage
        delivery.sizes = tuple(answer.sizes[: delivery.images])
        delivery.told, delivery.reports = tuple(answer.told[: delivery.images]), tuple(answer.reports)
        delivery.end(complete=complete, client_gone=self._client_gone or self._request.transport is None)

    def _break_off(self, error: Exception) -> web.StreamResponse:
        """Close it after the images that are whole; else an error where there is still time, or a cut."""
        delivery = self._delivery
        if isinstance(error, ProxyError):
            self._exchange.failure = error
        logger.warning(
            "%s: the answer of provider %s: %s", self._observation.request_id, delivery.served.provider, error
        )
        if (closed := self._close()) is not None:
            return closed
        if self._is_flowing and not self._is_stream and self._response is not None:
            self._abort()
            return self._response
        if delivery.images:
            raise UpstreamTruncated(
                f"The provider's answer broke off after {delivery.images} complete image(s), which are charged."
            ) from error
        if isinstance(error, ProxyError):
            raise error
        raise UpstreamUncertain("The provider's answer is not an images response; nothing was charged.") from error

    def _close(self) -> web.StreamResponse | None:
        """What is charged is delivered, in JSON that can be read: the images that are whole, where no other began."""
        answer = self._answer
        if answer is None or answer.images > self._images_most:
            return None
        end = answer.close()
        if end is None:
            return None
        if self._keeper is not None:
            self._keeper.add(end)
            self._delivery.body = self._keeper.body
        return self._send_end(end, answer.content_type)

    async def _write_error(self, error: ProxyError) -> web.StreamResponse:
        """Write an error into the answer where that has begun, here or at its provider, and settle by it."""
        response, answer = self._response, self._answer
        if self._closed is not None and not isinstance(error, ClientGone):
            self._observation.error = error.code
            return self._closed
        if response is None and self._is_stream and answer is not None and answer.failed_in_stream:
            with contextlib.suppress(ConnectionError, ClientError):
                response = await self._begin()
        if response is None or isinstance(error, ClientGone):
            raise error
        self._delivery.end_by(error)
        self._observation.error = error.code
        if not self._is_stream:
            written = None if self._is_flowing else orjson.dumps(error.body())
        else:
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
