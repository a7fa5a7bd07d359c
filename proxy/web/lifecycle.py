"""Whether this process takes requests, and how many it is at work on."""

from __future__ import annotations

import asyncio


class Lifecycle:
    """Shared by the middleware that counts requests and by whoever stops the process."""

    def __init__(self) -> None:
        """Take requests from the start."""
        self.draining = False
        self.in_flight = 0
        self._idle = asyncio.Event()

    def ended_one(self) -> None:
        """One request less."""
        self.in_flight -= 1
        if self.draining and self.in_flight == 0:
            self._idle.set()

    async def drain(self, timeout_s: float) -> bool:
        """Take no more requests and wait for those in flight; False where ``timeout_s`` seconds did not do."""
        self.draining = True
        if self.in_flight == 0:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
