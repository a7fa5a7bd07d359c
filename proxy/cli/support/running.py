"""Running the event loop until somebody asks the process to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from proxy.telemetry.logs import standard_error

T = TypeVar("T")

LAST_LINES_S = 0.5
"""How long the log may take where the process ends at once."""

GC_THRESHOLD = 10_000
"""Allocations between two collections: requests leave few cycles, and the default looks for them all the time."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def settle_memory() -> None:
    """Keep what start-up made out of the garbage collector's sight."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)


def on_hangup(act: Callable[[], None]) -> None:
    """Call ``act`` on each SIGHUP; needs a running event loop."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, act)


class StopSignals:
    """Waits for SIGTERM or SIGINT; the second one ends the process at once."""

    def __init__(self, at_once: Callable[[], None] = lambda: None) -> None:
        """Listen from now on; needs a running event loop. Before it ends the process at once, it calls ``at_once``."""
        self._at_once = at_once
        self._asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask, number)

    async def wait(self) -> None:
        """Return when the process should stop."""
        await self._asked.wait()

    async def unless_asked(self, start: Coroutine[Any, Any, None]) -> bool:
        """Run ``start`` to its end, or give it up where the process is asked to stop before; whether it ended."""
        starting, asked = asyncio.create_task(start), asyncio.create_task(self.wait())
        await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if starting.done():
            await starting
            return True
        starting.cancel()
        await asyncio.wait((starting,))
        return False

    def _ask(self, number: int) -> None:
        if self._asked.is_set():
            self._at_once()
            standard_error().flush(LAST_LINES_S)
            os._exit(128 + number)
        self._asked.set()
