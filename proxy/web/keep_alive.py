"""Comments in a stream while its provider is silent, so that nothing on the way takes it for dead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self


class KeepAlive:
    """A context in which ``send`` is called whenever ``interval_s`` seconds have gone by without a ``touch``."""

    def __init__(self, interval_s: float, send: Callable[[], Awaitable[None]]) -> None:
        """0 seconds: never. Needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._interval_s = interval_s
        self._send = send
        self._sending = asyncio.Lock()
        self._due = self._loop.time() + interval_s
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        if self._interval_s:
            self._task = self._loop.create_task(self._run())
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Stop, but not within a comment."""
        if self._task is None:
            return
        async with self._sending:
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((self._task,))

    def touch(self) -> None:
        """Something else has been sent."""
        self._due = self._loop.time() + self._interval_s

    async def _run(self) -> None:
        while True:
            wait_s = self._due - self._loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
                continue
            async with self._sending:
                await self._send()
            self.touch()
