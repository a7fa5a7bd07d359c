"""One provider that accepts tasks: a session for what needs the provider's key, and one without it for images."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from http import HTTPStatus
from time import time

from typing_extensions import override
from yarl import URL

from proxy.domain.billing.pending import PendingTask
from proxy.domain.errors import NoCredentials, TaskUnknown, UpstreamUncertain
from proxy.domain.headers import retry_after_seconds
from proxy.domain.requests.inputs import SIGNATURE_BYTES, kind_of_file
from proxy.telemetry.metrics import Metrics
from proxy.upstream.client import ProviderClient, open_client
from proxy.upstream.connection.client import RequestTraces
from proxy.upstream.connection.faults import AnswerBroken, ConnectFailed
from proxy.upstream.connection.response import Response
from proxy.upstream.decompression import decompressed, too_long
from proxy.upstream.dialects.polled import POLLED_DIALECTS
from proxy.upstream.dialects.polled.course import BACK_OFF, Course
from proxy.upstream.dialects.polled.protocol import Ticket
from proxy.upstream.errors.library import describe, without_frames
from proxy.upstream.polled.exchange import PolledExchange
from proxy.upstream.polled.hosts import AllowedHosts
from proxy.upstream.provider import Provider, TlsFiles
from proxy.upstream.watchdog import Watch

logger = logging.getLogger(__name__)

LOOK_TIMEOUT_S = 30.0
STATUS_BYTES_LIMIT = 2**20
"""Of what a provider says of a task, addresses and logs included."""

FETCHES_LIMIT = 3
"""An image is asked for so often, before any of it has come."""

CANCEL_TIMEOUT_S = 5.0


class PolledClient(ProviderClient):
    """What follows the tasks of one provider."""

    exchange_kind = PolledExchange

    def __init__(
        self,
        provider: Provider,
        watch: Watch,
        metrics: Metrics,
        traces: RequestTraces | None = None,
        *,
        shows_tokens: bool = False,
    ) -> None:
        """Open no connection yet; needs a running event loop."""
        super().__init__(provider, watch, metrics, traces, shows_tokens=shows_tokens)
        dialect = self.polled_dialect = POLLED_DIALECTS[provider.dialect]
        poll_hosts = dialect.poll_hosts if provider.poll_hosts is None else provider.poll_hosts
        result_hosts = dialect.result_hosts if provider.result_hosts is None else provider.result_hosts
        self._poll_hosts = AllowedHosts(poll_hosts, URL(provider.base_url))
        self._result_hosts = AllowedHosts(result_hosts)
        self._cancelling: set[asyncio.Task[None]] = set()
        self._images = open_client(
            provider,
            # Its own certificate is for the provider alone, as its key is.
            provider.tls and TlsFiles(ca_file=provider.tls.ca_file),
            traces,
            {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "lightmeter"},
        )

    @override
    async def close(self) -> None:
        if self._cancelling:
            await asyncio.wait(self._cancelling, timeout=CANCEL_TIMEOUT_S)
        self._images.close()
        await super().close()

    # --- Tasks --------------------------------------------------------------------------------------------------------

    def task_of(self, ticket: Ticket) -> PendingTask:
        """The task of a ticket, whose addresses the provider's key may be sent to.

        Raises UpstreamUncertain where that is not so, and tells the operator: the provider is at work on it.
        """
        for address in (ticket.poll_url, ticket.result_url):
            if address and self._poll_hosts.read(address) is None:
                host = address.partition("//")[2].partition("/")[0][:100]
                logger.error(
                    "provider %s has accepted a task, and says to look for it at %r, which is neither the host of its "
                    "base_url nor in its poll_hosts: add it there, if it is the provider's",
                    self.provider.name,
                    host,
                )
                raise UpstreamUncertain("The provider's task cannot be followed; the operator has been told.")
        cancel_url = ticket.cancel_url if self._poll_hosts.read(ticket.cancel_url) is not None else ""
        return PendingTask(self.provider.name, ticket.poll_url, ticket.result_url, cancel_url)

    async def follow(self, task: PendingTask, before_look: Callable[[float], None]) -> tuple[str, ...]:
        """The addresses of a task's images, when it is done; ``before_look`` gets the seconds until each look.

        Raises what the task ends by: an error of its provider, or TaskUnknown.
        """
        provider = self.provider
        course = Course(
            self.polled_dialect, task, first_s=provider.poll_interval_s, most_s=provider.max_poll_interval_s
        )
        while True:
            before_look(course.wait_s)
            await asyncio.sleep(course.wait_s)
            images = await self._look(course)
            if images is not None:
                return images

    async def finish(self, task: PendingTask, *, cancel: bool) -> int:
        """Follow a task that nobody waits for, within ``total_timeout``; the number of its images.

        It is cancelled first where that is asked for, and still possible. Raises what ``follow`` does.
        """
        self.in_use += 1
        try:
            async with asyncio.timeout(self.provider.total_timeout_s):
                if cancel:
                    await self._cancel(task)
                return len(set(await self.follow(task, lambda _wait_s: None)))
        except TimeoutError:
            logger.error("a task of provider %s did not end, and is no longer asked for", self.provider.name)
            raise TaskUnknown from None
        finally:
            self.in_use -= 1

    def cancel_soon(self, task: PendingTask) -> None:
        """Tell the provider that nobody waits for it; nothing is known to come of that."""
        cancelling = asyncio.get_running_loop().create_task(self._cancel(task))
        self._cancelling.add(cancelling)
        cancelling.add_done_callback(self._cancelling.discard)

    async def _look(self, course: Course) -> tuple[str, ...] | None:
        url = self._poll_hosts.read(course.url)
        if url is None:
            raise TaskUnknown
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                url, headers = await self.let_in(url)
                response = await self.http.request("GET", url, headers)
                with closing(response):
                    body = await self._read_status(response)
                    retry_after_s = retry_after_seconds(response.headers, time())
        except (ConnectFailed, AnswerBroken, TimeoutError, NoCredentials) as error:
            logger.info("a look at a task of provider %s failed: %s", self.provider.name, describe(error))
            without_frames(error)
            course.missed()
            return None
        return course.saw(response.status, response.headers, body, retry_after_s)

    async def _read_status(self, response: Response) -> bytes:
        body = bytearray()
        while piece := await response.read():
            body += piece
            if len(body) > STATUS_BYTES_LIMIT:
                raise too_long(STATUS_BYTES_LIMIT)
        return decompressed(response.head.encoding, bytes(body), STATUS_BYTES_LIMIT)

    async def _cancel(self, task: PendingTask) -> None:
        url = self._poll_hosts.read(task.cancel_url)
        if url is None:
            return
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                url, headers = await self.let_in(url)
                method = self.polled_dialect.cancel_method
                with closing(await self.http.request(method, url, headers)) as response:
                    logger.info("a task of provider %s was cancelled: %d", self.provider.name, response.status)
        except (ConnectFailed, AnswerBroken, TimeoutError, NoCredentials) as error:
            logger.warning("a task of provider %s could not be cancelled: %s", self.provider.name, describe(error))

    # --- Images -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def image(self, address: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of an image, piece by piece, fetched without the provider's key.

        Raises UpstreamUncertain where they cannot be had; asked for again as long as none of them has come.
        """
        url = self._result_hosts.read(address)
        if url is None:
            logger.error(
                "provider %s has an image at %r, which is not in its result_hosts: add it there, if it is the "
                "provider's",
                self.provider.name,
                address.partition("//")[2].partition("/")[0][:100],
            )
            raise UpstreamUncertain("The provider's image cannot be fetched; the operator has been told.")
        response = await self._open(url)
        try:
            yield self._pieces(response)
        finally:
            # One that was read to its end has given its connection back.
            response.close()

    async def _open(self, url: URL) -> Response:
        pause_s = self.provider.poll_interval_s
        for attempt in range(1, FETCHES_LIMIT + 1):
            try:
                response = await self._images.request("GET", url)
            except (ConnectFailed, AnswerBroken) as error:
                logger.warning("an image of provider %s: %s", self.provider.name, describe(error))
                without_frames(error)
            else:
                if response.status == HTTPStatus.OK:
                    return response
                logger.warning("an image of provider %s: status %d", self.provider.name, response.status)
                response.close()
            if attempt < FETCHES_LIMIT:
                await asyncio.sleep(pause_s)
                pause_s *= BACK_OFF
        raise UpstreamUncertain("The provider's image could not be fetched.")

    async def _pieces(self, response: Response) -> AsyncIterator[bytes]:
        limit_bytes, size, begin = self.provider.max_response_bytes, 0, b""
        try:
            while piece := await response.read():
                size += len(piece)
                if size > limit_bytes:
                    raise too_long(limit_bytes)
                if size - len(piece) < SIGNATURE_BYTES:
                    begin += piece
                    if len(begin) < SIGNATURE_BYTES:
                        continue
                    piece = begin
                    if not kind_of_file(response.content_type, begin[:SIGNATURE_BYTES]).startswith("image/"):
                        raise UpstreamUncertain("What the provider has in its image's place is no image.")
                yield piece
        except AnswerBroken as error:
            raise UpstreamUncertain("The provider's image broke off.") from without_frames(error)
        if size < SIGNATURE_BYTES:
            raise UpstreamUncertain("What the provider has in its image's place is no image.")
