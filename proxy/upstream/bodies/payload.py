"""Sending a body with files in it: read as the provider takes it, and once before where it is signed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from hashlib import sha256

from aiohttp import Payload
from aiohttp.abc import AbstractStreamWriter

from proxy.upstream.bodies.outgoing import FileBytes, OutgoingBody

READ_BYTES = 3 * 65_536
"""A multiple of three, so that pieces of base64 can be put one after the other."""


class UploadPayload(Payload):
    """An ``OutgoingBody`` for aiohttp; ``on_progress`` is called whenever the provider has taken some of it."""

    def __init__(self, body: OutgoingBody, on_progress: Callable[[], None]) -> None:
        """Nothing is read yet."""
        super().__init__(body, content_type=body.content_type)
        self._size = body.size_bytes
        self._body = body
        self._on_progress = on_progress
        self.unreadable: Exception | None = None
        """Why a file could not be read, which is not the provider's fault."""

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """A body of files has no text (aiohttp's ``Payload`` asks for one)."""
        raise TypeError("a body with files is not a text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it. Raises OSError or ValueError where a file cannot be read."""
        for piece in self._body.pieces:
            if isinstance(piece, bytes):
                await writer.write(piece)
            else:
                await self._write_file(piece, writer)
            self._on_progress()

    async def _write_file(self, file: FileBytes, writer: AbstractStreamWriter) -> None:
        pieces = _read(file)
        while True:
            try:
                piece = await anext(pieces, b"")
            except (OSError, ValueError) as error:
                self.unreadable = error
                raise
            if not piece:
                return
            await writer.write(piece)
            self._on_progress()


async def digest_of(body: bytes | OutgoingBody) -> str:
    """The SHA-256 of all of it, in hexadecimal. Raises OSError or ValueError where a file cannot be read."""
    digest = sha256()
    for piece in [body] if isinstance(body, bytes) else body.pieces:
        if isinstance(piece, bytes):
            view = memoryview(piece)
            for at in range(0, len(piece), READ_BYTES):
                digest.update(view[at : at + READ_BYTES])
                if at:
                    # Others go on meanwhile.
                    await asyncio.sleep(0)
        else:
            async for part in _read(piece):
                digest.update(part)
                await asyncio.sleep(0)
    return digest.hexdigest()


async def _read(file: FileBytes) -> AsyncGenerator[bytes, None]:
    """A file as it is sent, piece by piece."""
    upload = file.upload
    at, end = upload.start, upload.start + upload.size_bytes
    while at < end:
        data = await upload.source.read(at, min(READ_BYTES, end - at))
        if not data:
            raise OSError("an uploaded file is shorter than it was")
        at += len(data)
        yield base64.b64encode(data) if file.in_base64 else data
