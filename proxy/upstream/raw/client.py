"""One provider whose answer is an image's bytes: they are encoded while they arrive, as OpenAI's answer has them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from time import time
from types import TracebackType

from typing_extensions import override

from proxy.domain.errors import UpstreamUncertain
from proxy.domain.requests.inputs import SIGNATURE_BYTES, kind_of_file
from proxy.telemetry.metrics import Metrics
from proxy.upstream.bodies.base64_pieces import Base64Pieces
from proxy.upstream.client import ProviderClient
from proxy.upstream.connection.client import RequestTraces
from proxy.upstream.dialects import RAW_DIALECTS
from proxy.upstream.exchange import Exchange
from proxy.upstream.provider import Provider
from proxy.upstream.watchdog import Watch

IMAGE = "image/"


class RawExchange(Exchange):
    """Its provider may answer with a document all the same, which is read as any other."""

    __slots__ = ("_pieces",)

    client: RawClient
    _pieces: AsyncGenerator[bytes, None] | None

    @override
    async def _send(self) -> None:
        self._pieces = None
        await super()._send()
        response = self._response
        if response is None or not response.content_type.startswith(IMAGE):
            return
        error = self.client.raw_dialect.read_head(response.headers)
        if error is not None:
            raise error
        begin, self._begin = self._begin, b""
        self._pieces = self._encode(begin)

    @override
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pieces, self._pieces = self._pieces, None
        try:
            if pieces is not None:
                await pieces.aclose()
        finally:
            await super().__aexit__(kind, error, trace)

    @override
    async def read(self) -> bytes:
        """The next piece of the answer that is made of the image."""
        if self._begin or self._pieces is None:
            return await super().read()
        return await anext(self._pieces, b"")

    async def _encode(self, begin: bytes) -> AsyncGenerator[bytes, None]:
        encoded = Base64Pieces()
        yield b'{"created":%d,"data":[{"b64_json":"' % time()
        piece = begin
        while len(piece) < SIGNATURE_BYTES and (more := await super().read()):
            piece += more
        if not kind_of_file(None, piece[:SIGNATURE_BYTES]).startswith(IMAGE):
            raise UpstreamUncertain("What the provider has answered is no image, though it says so.")
        while piece:
            if whole := encoded.take(piece):
                yield whole
            piece = await super().read()
        yield encoded.end() + b'"}]}'


class RawClient(ProviderClient):
    """Asks for images, and for no documents."""

    exchange_kind = RawExchange

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
        self.raw_dialect = RAW_DIALECTS[provider.dialect]
        self.http.headers["Accept"] = "image/*"
