"""Runs a program whose clock goes slower from SIGUSR2 on, as callgrind makes everything else go slower.

``python slowly.py FILE ARGUMENT...``. What a program does by the clock would otherwise be done
fifty times for each request, and more often where the machine is busy: most of what differs between two runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import runpy
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeVarTuple, Unpack

import uvloop

Arguments = TypeVarTuple("Arguments")

SLOWER = 50
"""About as much as callgrind slows a program down."""
SWITCH_INTERVAL_S = 0.005
"""For how long a thread keeps the interpreter where another waits for it: Python's own figure."""


class SlowLoop(uvloop.Loop):
    """uvloop, whose second lasts longer as soon as somebody says so."""

    slow_since_s: float | None = None

    def time(self) -> float:
        now_s = super().time()
        return now_s if self.slow_since_s is None else self.slow_since_s + (now_s - self.slow_since_s) / SLOWER

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        waits_s = delay if self.slow_since_s is None else delay * SLOWER
        return super().call_later(waits_s, callback, *args, context=context)


def slow_down(_number: int, _frame: FrameType | None) -> None:
    """From now on. uvloop counts from where `time.monotonic` does."""
    SlowLoop.slow_since_s = time.monotonic()
    sys.setswitchinterval(SLOWER * SWITCH_INTERVAL_S)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, slow_down)
    uvloop.new_event_loop = SlowLoop
    # Not this folder's modules, but those of whoever is run.
    sys.path.pop(0)
    sys.argv.pop(0)
    runpy.run_path(sys.argv[0], run_name="__main__")
