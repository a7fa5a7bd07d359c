"""Time limits for the phases of one exchange, at the price of one timer for all of them.

``asyncio.timeout`` has to be rescheduled for each piece of a body, which for a large answer costs as much as passing it
on. Here a phase only notes when it is due; the timer, when it fires too early, sets itself again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Watchdog:
    """Interrupts the task that entered it when a phase outlasts its time."""

    __slots__ = ("_armed_for", "_due", "_ends", "_error", "_handle", "_loop", "_on_expiry", "_task", "_was_cancelling")

    def __init__(self, total_s: float) -> None:
        """Give all phases together ``total_s`` seconds."""
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + total_s
        self._due = self._armed_for = self._ends
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._was_cancelling = 0
        self._error: Exception | None = None
        self._on_expiry: Callable[[], None] = self._nothing

    async def __aenter__(self) -> Self:
        """Watch the current task from here on."""
        task = asyncio.current_task()
        assert task is not None, "a watchdog is entered from a task"  # noqa: S101 - for the type checker
        self._task = task
        self._was_cancelling = task.cancelling()
        self._handle = self._loop.call_at(self._armed_for, self._check)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Stop watching; turn the interruption into the phase's error."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._error is None or self._task is None:
            return
        if self._task.uncancel() <= self._was_cancelling and kind is asyncio.CancelledError:
            raise self._error

    def phase(self, limit_s: float, on_expiry: Callable[[], None]) -> None:
        """From now on, ``on_expiry`` is called unless the next phase begins within ``limit_s`` seconds.

        It is called again for as long as the phase goes on, so it should end it: ``interrupt``, or close what is waited
        for.
        """
        self._due = min(self._loop.time() + limit_s, self._ends)
        self._on_expiry = on_expiry
        if self._due < self._armed_for and self._handle is not None:
            self._handle.cancel()
            self._armed_for = self._due
            self._handle = self._loop.call_at(self._due, self._check)

    def interrupt(self, error: Exception) -> None:
        """Raise ``error`` in the watched task, out of the watchdog's block."""
        if self._error is None and self._task is not None:
            self._error = error
            self._task.cancel()

    def _check(self) -> None:
        now = self._loop.time()
        if now >= self._due:
            self._on_expiry()
            self._due = now + 1.0
        self._armed_for = self._due
        self._handle = self._loop.call_at(self._due, self._check)

    def _nothing(self) -> None:
        return
