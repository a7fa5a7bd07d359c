"""One request that its provider answers with a ticket: an exchange whose answer is made of the images of the task."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from decimal import Decimal
from time import perf_counter, time
from types import TracebackType
from typing import TYPE_CHECKING

import orjson
from typing_extensions import override

from proxy.domain.billing.pending import PendingTask
from proxy.domain.catalog import Model
from proxy.domain.errors import ClientGone, UpstreamTimeout, UpstreamUncertain
from proxy.domain.requests.chat import ChatRequest
from proxy.upstream.bodies.base64_pieces import Base64Pieces
from proxy.upstream.dialects.polled.protocol import Ticket
from proxy.upstream.exchange import Asked, Exchange

if TYPE_CHECKING:
    from proxy.upstream.polled.client import PolledClient

TICKET_BYTES_LIMIT = 2**20
BASE64 = "b64_json"


def wants_base64(asked: Asked, model: Model) -> bool:
    """Whether images are to be fetched: as the request says, or else as the model is configured.

    An event of OpenAI's has its image in base64.
    """
    if isinstance(asked, ChatRequest):
        return False
    said = asked.fields.get("response_format")
    return (said or (BASE64 if asked.stream else model.response_format)) == BASE64


class PolledExchange(Exchange):
    """Entering it submits the task and waits for its end; what is read is OpenAI's answer, made of its images.

    From the ticket on the task is drawn, whatever happens here: it is not asked for again, and whoever settles the
    request has it written down.
    """

    __slots__ = ("_is_done", "_pieces", "_task")

    client: PolledClient
    _pieces: AsyncGenerator[bytes, None] | None
    _task: PendingTask | None

    @override
    async def _send(self) -> None:
        self._task = self._pieces = None
        self._is_done = False
        await super()._send()
        ticket = await self._read_ticket()
        self._task = task = self.client.task_of(ticket)
        if self._served.keeper is not None:
            await self._served.keeper.keep(task)
        began = perf_counter()
        try:
            addresses = await self.client.follow(task, self._wait)
        finally:
            self._observation.provider_s += perf_counter() - began
        self._is_done = True
        as_base64 = wants_base64(self._asked, self._model)
        self._pieces = self._write(addresses, ticket.cost_usd, as_base64=as_base64)

    @override
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A task that is given up is cancelled, where its provider knows how."""
        pieces, task = self._pieces, self._task
        self._pieces = self._task = None
        try:
            if pieces is not None:
                await pieces.aclose()
        finally:
            try:
                await super().__aexit__(kind, error, trace)
            except (ClientGone, UpstreamTimeout):
                if task is not None and not self._is_done:
                    self.client.cancel_soon(task)
                raise

    @override
    async def read(self) -> bytes:
        """The next piece of the answer. Raises UpstreamUncertain where an image cannot be fetched."""
        if self._begin or self._pieces is None:
            return await super().read()
        self.watchdog.phase(self.client.provider.idle_timeout_s, self._interrupt)
        began = perf_counter()
        try:
            return await anext(self._pieces, b"")
        finally:
            self._observation.provider_s += perf_counter() - began

    async def _read_ticket(self) -> Ticket:
        self._served.is_accepted = True
        body = b""
        while piece := await super().read():
            body += piece
            if len(body) > TICKET_BYTES_LIMIT:
                break
        response, self._response, self._body_reader = self._response, None, None
        if response is not None:
            response.close()
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            answer = None
        ticket = self.client.polled_dialect.read_ticket(answer) if isinstance(answer, dict) else None
        if ticket is None:
            raise UpstreamUncertain("The provider's answer names no task that could be followed; nothing was charged.")
        return ticket

    def _wait(self, wait_s: float) -> None:
        # A look has its own time; all of them together have the provider's total_timeout.
        self.watchdog.phase(wait_s + self.client.provider.first_byte_timeout_s, self._interrupt)

    async def _write(
        self, addresses: tuple[str, ...], cost_usd: Decimal | None, *, as_base64: bool
    ) -> AsyncGenerator[bytes, None]:
        yield b'{"created":%d,"data":[' % time()
        for number, address in enumerate(addresses):
            if number:
                yield b","
            if not as_base64 or address[:5].lower() == "data:":
                yield orjson.dumps({"url": address})
                continue
            yield b'{"b64_json":"'
            encoded = Base64Pieces()
            async with self.client.image(address) as pieces:
                async for piece in pieces:
                    if whole := encoded.take(piece):
                        yield whole
            yield encoded.end() + b'"}'
        # As OpenRouter reports its costs, which stay inside.
        yield b"]}" if cost_usd is None else b'],"usage":{"cost":%b}}' % f"{cost_usd:f}".encode()
