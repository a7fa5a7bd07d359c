"""Full load: every kind of request over and over, each on its own connections, the next one as the last one ends."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from tests.support.forms import FORM, form_of

MODEL = "acme/image-1"
PROMPT = "A clean product photo of a translucent blue cube"
MEGABYTE = 10**6
LARGE_BYTES = 30 * MEGABYTE
ANSWER_TIMEOUT_S = 120
READ_BYTES = 262_144
JSON = "application/json"
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request: how many connections ask for it, and what an answer has at the least."""

    name: str
    connections: int
    path: str
    body: bytes
    answer_bytes: int = 100
    content_type: str = JSON


def kinds(large_bytes: int = LARGE_BYTES) -> tuple[Kind, ...]:
    """What clients of such a gateway send, among it bodies of ``large_bytes``, nearly the most there may be."""
    return (
        Kind("small answers", 16, GENERATIONS, _asked()),
        Kind("events", 4, GENERATIONS, _asked(MEGABYTE, stream=True, partial_images=2), MEGABYTE),
        Kind("4 MB answers", 4, GENERATIONS, _asked(4 * MEGABYTE), 4 * MEGABYTE),
        Kind("30 MB answers", 2, GENERATIONS, _asked(large_bytes), large_bytes),
        Kind("30 MB in a form", 2, EDITS, _form(large_bytes), content_type=FORM),
        Kind("30 MB in JSON", 1, EDITS, _asked(images=[{"image_url": _data_address(large_bytes)}])),
    )


def _asked(image_bytes: int = 0, **more: object) -> bytes:
    lead = f"[sample image_bytes={image_bytes}] " if image_bytes else ""
    return json.dumps({"model": MODEL, "prompt": lead + PROMPT, "n": 1, **more}).encode()


def _form(size: int) -> bytes:
    picture = b"\x89PNG\r\n\x1a\n".ljust(size, b"\x2a")
    return form_of([("model", MODEL), ("prompt", PROMPT), ("image", picture)])


def _data_address(size: int) -> str:
    return "data:image/png;base64,iVBORw0KGgo".ljust(size, "A")


class Traffic:
    """What was answered so far, by its kind."""

    def __init__(self, url: str, keys: Sequence[str]) -> None:
        """Ask the gateway at ``url``, each connection with the next of ``keys``."""
        self._url = url
        self._keys = keys
        self.answered: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self, each: Sequence[Kind]) -> AsyncIterator[None]:
        """Full load for as long as the block lasts. Raises RuntimeError where an answer is not what was asked for."""
        connections = sum(kind.connections for kind in each)
        connector = aiohttp.TCPConnector(limit=connections)
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(
            self._url, connector=connector, timeout=timeout, read_bufsize=READ_BYTES
        ) as session:
            keys = self._keys_in_turn()
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._ask_on(session, kind, next(keys)))
                    for kind in each
                    for _ in range(kind.connections)
                ]
                try:
                    yield
                finally:
                    for task in tasks:
                        task.cancel()

    def _keys_in_turn(self) -> Iterator[str]:
        while True:
            yield from self._keys

    async def _ask_on(self, session: aiohttp.ClientSession, kind: Kind, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": kind.content_type}
        while True:
            async with session.post(kind.path, data=kind.body, headers=headers) as response:
                if response.status != 200:
                    raise RuntimeError(f"{kind.name}: {response.status} {await response.text()}")
                size = 0
                async for piece in response.content.iter_any():
                    size += len(piece)
                if size < kind.answer_bytes:
                    raise RuntimeError(f"{kind.name}: an answer has {size:,} bytes")
            self.answered[kind.name] += 1
