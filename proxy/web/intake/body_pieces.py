"""The pieces of a large body, from a client who may be slow, but not for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from proxy.domain.errors import InvalidRequest, RequestTimeout
from proxy.web.intake.request_body import body_too_large


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a body may take, how long nothing of it may come (seconds), and how fast it has to be on average.

    ``least_rate`` is in bytes a second; the first ``idle_timeout_s`` seconds of waiting are not counted against it.
    """

    timeout_s: float
    idle_timeout_s: float
    least_rate: float


class BodyPieces:
    """Reads one body. Only waiting for the client counts against its rate, not what is done with a piece."""

    __slots__ = ("_content", "_ends", "_limit_bytes", "_loop", "_patience", "_waited_s", "size")

    def __init__(self, request: web.Request, patience: Patience, limit_bytes: int) -> None:
        """Read the body of ``request``, which has at most ``limit_bytes`` bytes; its time begins now."""
        self._content = request.content
        self._patience = patience
        self._limit_bytes = limit_bytes
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + patience.timeout_s
        self._waited_s = 0.0
        self.size = 0

    async def next(self) -> bytes:
        """The next piece, nothing at the end.

        Raises RequestTimeout, PayloadTooLarge, or InvalidRequest where the body breaks off.
        """
        patience, began = self._patience, self._loop.time()
        rate_s = patience.idle_timeout_s + self.size / patience.least_rate - self._waited_s
        try:
            async with asyncio.timeout_at(min(self._ends, began + min(patience.idle_timeout_s, rate_s))):
                piece = await self._content.readany()
        except TimeoutError:
            raise RequestTimeout(
                f"The request's body did not arrive within {patience.timeout_s:g} seconds, stood still for "
                f"{patience.idle_timeout_s:g} seconds, or came at less than {patience.least_rate:g} bytes a second."
            ) from None
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError):
            raise InvalidRequest("The request's body broke off before its end.") from None
        self._waited_s += self._loop.time() - began
        self.size += len(piece)
        if self.size > self._limit_bytes:
            raise body_too_large(self._limit_bytes)
        return piece
