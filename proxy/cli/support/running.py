"""Running the event loop until somebody asks the process to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from proxy.telemetry.logs import standard_error

logger = logging.getLogger(__name__)

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


class Terminal:
    """The terminal that the process was started at, if it was: when that is closed, nobody is left to stop it.

    SIGHUP means both that, and that a configuration should be read again (setsid(2), termios(3)).
    """

    def __init__(self) -> None:
        """Look for it, before any handler of SIGHUP is set: ``nohup`` has it ignored, and the process stay."""
        self._matters = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

    @property
    def is_closed(self) -> bool:
        """Whether it was there at the start and is gone."""
        return self._matters and not _has_terminal()


def reload_or_stop(terminal: Terminal, stop: StopSignals, reload: Callable[[], None]) -> None:
    """What SIGHUP asks for: the end where ``terminal`` was closed, or else a ``reload``."""
    if not terminal.is_closed:
        reload()
        return
    logger.warning("the terminal was closed, so the gateway ends as on SIGTERM; under nohup or setsid it stays")
    stop.ask()


def _has_terminal() -> bool:
    try:
        # The controlling terminal, wherever input and output lead.
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


class StopSignals:
    """Waits for SIGTERM or SIGINT; the second one ends the process at once."""

    def __init__(self, at_once: Callable[[], None] = lambda: None) -> None:
        """Listen from now on; needs a running event loop. Before it ends the process at once, it calls ``at_once``."""
        self._at_once = at_once
        self._asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask, number)

    @property
    def is_asked(self) -> bool:
        """Whether the process should stop."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Stop, as if by a first signal; whoever is stopping already goes on."""
        self._asked.set()

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
