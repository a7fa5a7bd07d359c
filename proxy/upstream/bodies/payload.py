"""Reading a body with files in it: piece by piece as the provider takes it, and once before where it is signed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from hashlib import sha256

from proxy.upstream.bodies.outgoing import FileBytes, OutgoingBody

READ_BYTES = 3 * 65_536
"""A multiple of three, so that pieces of base64 can be put one after the other."""


async def pieces_of(body: OutgoingBody) -> AsyncGenerator[bytes, None]:
    """All of it. Raises OSError or ValueError where a file cannot be read."""
    for piece in body.pieces:
        if isinstance(piece, bytes):
            if piece:
                yield piece
            continue
        async for part in _read(piece):
            yield part


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
