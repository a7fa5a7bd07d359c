"""Reading a form with files: only so much, only for so long, and never held in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from proxy.domain.edit_request import FieldKind
from proxy.domain.errors import InvalidRequest, RequestTimeout
from proxy.metering.form_reader import Form, FormLimits, FormReader
from proxy.metering.request_body import accept_body, body_too_large, check_body
from proxy.metering.spool import Spool


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How large a form may be (bytes), how long it may take, and how long nothing of it may come (seconds)."""

    form: FormLimits
    max_bytes: int
    timeout_s: float
    idle_timeout_s: float


async def read_form(
    request: web.Request,
    limits: UploadLimits,
    spool: Spool,
    kind_of_field: Callable[[str], FieldKind | None],
    *,
    hashes: bool,
) -> Form:
    """The form in the body of ``request``; its files lie in ``spool``. See ``FormReader`` for the arguments.

    Raises PayloadTooLarge, RequestTimeout, UploadsUnavailable, UnknownParameter, or InvalidRequest, also where the body
    breaks off.
    """
    check_body(request, limits.max_bytes)
    reader = FormReader(request.headers["Content-Type"], limits.form, spool, kind_of_field, hashes=hashes)
    accept_body(request)
    loop = asyncio.get_running_loop()
    ends = loop.time() + limits.timeout_s
    size = 0
    try:
        async with asyncio.timeout_at(ends) as timeout:
            while True:
                timeout.reschedule(min(ends, loop.time() + limits.idle_timeout_s))
                piece = await request.content.readany()
                if not piece:
                    break
                size += len(piece)
                if size > limits.max_bytes:
                    raise body_too_large(limits.max_bytes)
                timeout.reschedule(ends)
                await spool.write(reader.feed(piece))
            await spool.end()
    except TimeoutError:
        raise RequestTimeout(
            f"The form did not arrive within {limits.timeout_s:g} seconds, or stood still for "
            f"{limits.idle_timeout_s:g} seconds."
        ) from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError):
        raise InvalidRequest("The request's body broke off before its end.") from None
    return reader.finish()
