"""Passing a provider's answer on to the client, piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from time import perf_counter

from aiohttp import ClientError, web

from proxy.domain.errors import ProxyError, UpstreamError, UpstreamTruncated
from proxy.domain.images_answer import ImagesAnswer
from proxy.domain.response_scanner import MalformedResponse
from proxy.domain.settlement import Delivery
from proxy.telemetry.observation import Observation
from proxy.upstream.pool import Exchange
from proxy.web.common_headers import common_headers

logger = logging.getLogger(__name__)

JSON = "application/json"
BLANKS = b" " * 65_536


class StreamedResponse(web.StreamResponse):
    """An answer that keeps its end back until whoever returns it has settled.

    Where the provider told the length of its answer, that is the length of this one as well: what was left out is made
    up for with blanks at the end, which JSON allows (RFC 8259 section 2). A body of known length is passed on without
    being copied into chunks.
    """

    def __init__(
        self, length: int | None, headers: dict[str, str], transport: asyncio.Transport, limit_s: float
    ) -> None:
        """``length`` in bytes, None where it is not known; the end may take ``limit_s`` seconds for each 64 KiB."""
        super().__init__(headers=headers)
        self._transport = transport
        self._limit_s = limit_s
        self._ended = False
        self._unsent = length
        if length is not None:
            self.content_length = length
        self.end = b""

    async def pass_on(self, piece: bytes) -> None:
        """Send a piece."""
        if self._unsent is not None:
            self._unsent -= len(piece)
        await self.write(piece)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the end, and the blanks that are due; again, nothing."""
        if self._ended:
            return
        self._ended = True
        end, self.end = self.end + data, b""
        if self._unsent is not None:
            blanks, self._unsent = self._unsent - len(end), 0
            await self._write_in_time(end)
            for _ in range(blanks // len(BLANKS)):
                await self._write_in_time(BLANKS)
            end = BLANKS[: blanks % len(BLANKS)]
        with self._deadline():
            await super().write_eof(end)

    async def _write_in_time(self, piece: bytes) -> None:
        with self._deadline():
            await self.write(piece)

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[None]:
        timer = asyncio.get_running_loop().call_later(self._limit_s, self._transport.abort)
        try:
            yield
        finally:
            timer.cancel()


class Relay:
    """One answer on its way to one client, who may leave; the provider's answer is read to its end all the same."""

    def __init__(
        self, request: web.Request, observation: Observation, exchange: Exchange, write_timeout_s: float
    ) -> None:
        """Answer ``request`` from ``exchange``; a client that reads nothing for ``write_timeout_s`` s is let go."""
        self._request = request
        self._observation = observation
        self._exchange = exchange
        self._write_timeout_s = write_timeout_s
        self._response: StreamedResponse | None = None
        self._client_gone = False

    async def pass_on(self, answer: ImagesAnswer, delivery: Delivery) -> web.StreamResponse:
        """Send what ``answer`` lets through, and write down in ``delivery`` what came.

        The end is sent by whoever called, after the settlement: an answer that is whole has been charged.
        """
        whole, keeper = b"", delivery.keeper
        try:
            while piece := await self._exchange.read():
                passed = answer.feed(piece)
                if keeper is not None:
                    keeper.add(passed)
                if passed and not self._client_gone:
                    await self._send(passed, is_last=answer.complete)
            whole = answer.finish()
            if keeper is not None:
                keeper.add(whole)
        except (MalformedResponse, ProxyError) as error:
            self._end(answer, delivery, complete=False)
            return self._break_off(error, delivery)
        except BaseException:
            # By the watchdog, at the end of the process or by a fault of ours: these images have been made.
            self._end(answer, delivery, complete=False)
            if self._response is not None:
                self._abort()
            raise
        self._end(answer, delivery, complete=True)
        return self._response or self._whole(whole)

    async def _send(self, piece: bytes, *, is_last: bool) -> None:
        began = perf_counter()
        self._exchange.watchdog.phase(self._write_timeout_s, self._abort, counted=False)
        try:
            response = self._response
            if response is None:
                response = self._response = self._begin()
                await response.prepare(self._request)
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

    def _begin(self) -> StreamedResponse:
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        headers = {"Content-Type": JSON, **common_headers(self._observation)}
        return StreamedResponse(self._exchange.content_length, headers, transport, self._write_timeout_s)

    def _whole(self, body: bytes) -> web.Response:
        self._observation.response_bytes = len(body)
        return web.Response(body=body, content_type=JSON)

    def _end(self, answer: ImagesAnswer, delivery: Delivery, *, complete: bool) -> None:
        if not complete:
            answer.break_off()
        delivery.images, delivery.provider_usage = answer.images, answer.usage
        delivery.end(complete=complete, client_gone=self._client_gone or self._request.transport is None)

    def _break_off(self, error: Exception, delivery: Delivery) -> web.StreamResponse:
        """Never end a body that is not whole as if it were: an error where there is still time, else a cut."""
        logger.warning("%s: the answer of provider %s: %s", self._observation.request_id, delivery.provider, error)
        if self._response is not None:
            self._abort()
            return self._response
        if delivery.images:
            raise UpstreamTruncated(
                f"The provider's answer broke off after {delivery.images} complete image(s), which are charged."
            ) from error
        if isinstance(error, ProxyError):
            raise error
        raise UpstreamError("The provider's answer is not an images response; nothing was charged.") from error

    def _abort(self) -> None:
        self._client_gone = True
        if self._request.transport is not None:
            self._request.transport.abort()
