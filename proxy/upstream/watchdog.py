"""Time limits for the phases of an exchange, at almost no price.

``asyncio.timeout`` takes a timer of the event loop for each wait, which for a large answer costs as much as passing it
on. Here a phase only notes when it is due, and one timer looks at all exchanges of the process a few times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from proxy.domain.errors import ClientGone

TICK_S = 0.05
"""How late an interruption may come."""


class Watch:
    """Looks after every watchdog of an event loop, for as long as there is one."""

    def __init__(self) -> None:
        """Needs a running event loop."""
        self.loop = asyncio.get_running_loop()
        self._watchdogs: set[Watchdog] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watchdog: Watchdog) -> None:
        """Look after one more."""
        self._watchdogs.add(watchdog)
        if self._timer is None:
            self._timer = self.loop.call_later(TICK_S, self._look)

    def remove(self, watchdog: Watchdog) -> None:
        """Look after one less."""
        self._watchdogs.discard(watchdog)

    def _look(self) -> None:
        now = self.loop.time()
        for watchdog in list(self._watchdogs):
            watchdog.check(now)
        self._timer = self.loop.call_later(TICK_S, self._look) if self._watchdogs else None


class Watchdog:
    """Interrupts the task that entered it when a phase outlasts its time."""

    __slots__ = ("_due", "_ends", "_error", "_is_moot", "_loop", "_on_expiry", "_task", "_was_cancelling", "_watch")

    def __init__(self, watch: Watch, total_s: float) -> None:
        """Give all phases together ``total_s`` seconds."""
        self._watch = watch
        self._loop = watch.loop
        self._ends = self._due = self._loop.time() + total_s
        self._task: asyncio.Task[object] | None = None
        self._was_cancelling = 0
        self._error: Exception | None = None
        self._on_expiry: Callable[[], None] | None = None
        self._is_moot: Callable[[], bool] | None = None

    async def __aenter__(self) -> Self:
        """Watch the current task from here on."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a watchdog is entered from a task")
        self._task = task
        self._was_cancelling = task.cancelling()
        self._watch.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Stop watching; turn the interruption into the phase's error."""
        self._watch.remove(self)
        task, error, self._task = self._task, self._error, None
        # These hold the exchange, which holds this and the request's body: without the collector, for ever.
        self._on_expiry = self._is_moot = None
        if error is None or task is None:
            return
        if task.uncancel() <= self._was_cancelling and kind is asyncio.CancelledError:
            raise error

    def phase(self, limit_s: float, on_expiry: Callable[[], None], *, counted: bool = True) -> None:
        """From now on, ``on_expiry`` is called unless the next phase begins within ``limit_s`` seconds.

        Nor may a phase that is ``counted`` go on past the end of the time for all phases together.

        It is called again for as long as the phase goes on, so it should end it: ``interrupt``, or close what is waited
        for.
        """
        due = self._loop.time() + limit_s
        self._due = self._ends if counted and self._ends < due else due
        self._on_expiry = on_expiry

    def end_when(self, is_moot: Callable[[], bool]) -> None:
        """Raise ClientGone in the watched task as soon as nobody wants the answer any more."""
        self._is_moot = is_moot

    def grant(self, seconds: float) -> None:
        """Add to the time of all phases together: these were not the provider's."""
        self._ends += seconds

    def interrupt(self, error: Exception) -> None:
        """Raise ``error`` in the watched task, out of the watchdog's block."""
        if self._error is None and self._task is not None:
            self._error = error
            self._task.cancel()

    def check(self, now: float) -> None:
        """Act where the phase is over its time; ``now`` is the event loop's."""
        if now >= self._due and self._on_expiry is not None:
            self._on_expiry()
        if self._is_moot is not None and self._is_moot():
            self.interrupt(ClientGone())
