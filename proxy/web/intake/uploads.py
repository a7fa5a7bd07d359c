"""Reading a form with files: only so much, only for so long, and never held in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from proxy.domain.errors import RequestTimeout
from proxy.domain.requests.edit import FieldKind
from proxy.web.intake.body_pieces import BodyPieces, Patience
from proxy.web.intake.form_reader import Form, FormLimits, FormReader
from proxy.web.intake.request_body import accept_body, check_body
from proxy.web.intake.spool import Spool


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How large a form may be (bytes), and how slow."""

    form: FormLimits
    max_bytes: int
    patience: Patience


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
    pieces = BodyPieces(request, limits.patience, limits.max_bytes)
    try:
        # Waiting for the disk has its end too.
        async with asyncio.timeout(limits.patience.timeout_s):
            while piece := await pieces.next():
                await spool.write(reader.feed(piece))
            await spool.end()
    except TimeoutError:
        raise RequestTimeout(f"The form did not arrive within {limits.patience.timeout_s:g} seconds.") from None
    return reader.finish()
