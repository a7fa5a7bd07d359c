"""Whether this process takes requests, and how many it is at work on."""

from __future__ import annotations

import asyncio
from typing import Any

BREAK_OFF_S = 10.0
QUIET_S = 1.0
"""Without a request for so long, the connections that are still open are idle ones."""

POLL_S = 0.05


class Lifecycle:
    """Shared by the middleware that counts requests and by whoever stops the process."""

    def __init__(self) -> None:
        """Take requests from the start."""
        self.draining = False
        self.leaving = False
        """Another process takes new connections; those that are here are served once more, and then closed."""
        self._begun = 0
        self._requests: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """How many requests are at work."""
        return len(self._requests)

    def begin(self) -> asyncio.Task[Any] | None:
        """The current task serves a request from here on, until ``end``."""
        task = asyncio.current_task()
        if task is not None:
            self._requests.add(task)
            self._begun += 1
        return task

    def end(self, task: asyncio.Task[Any] | None) -> None:
        """The request has been answered."""
        if task is not None:
            self._requests.discard(task)
        if self.draining and not self._requests:
            self._idle.set()

    async def until_quiet(self, timeout_s: float) -> float:
        """Wait until no request has come for a while; the seconds that it took, at most ``timeout_s``."""
        now = asyncio.get_running_loop().time
        began = last = now()
        seen = self._begun
        while now() - began < timeout_s:
            if self._requests or self._begun != seen:
                seen, last = self._begun, now()
            elif now() - last >= QUIET_S:
                break
            await asyncio.sleep(POLL_S)
        return min(timeout_s, now() - began)

    async def drain(self, timeout_s: float) -> int:
        """Take no more requests, and wait for those in flight; the number of those that had to be broken off.

        Those that ``timeout_s`` seconds did not do for are cancelled, and have ``BREAK_OFF_S`` more to settle.
        """
        self.draining = True
        if await self._is_idle_within(timeout_s):
            return 0
        late = list(self._requests)
        for task in late:
            task.cancel()
        await self._is_idle_within(BREAK_OFF_S)
        return len(late)

    async def _is_idle_within(self, timeout_s: float) -> bool:
        if self._requests:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._idle.wait()
            except TimeoutError:
                return False
        return True
