"""Waiting for something to become true, and not longer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from time import monotonic, sleep

POLL_S = 0.02


async def eventually(condition: Callable[[], object | Awaitable[object]], *, within_s: float = 20) -> None:
    """Return as soon as ``condition`` holds. Raises AssertionError where it does not within ``within_s`` seconds."""
    deadline = monotonic() + within_s
    while monotonic() < deadline:
        holds = condition()
        if inspect.isawaitable(holds):
            holds = await holds
        if holds:
            return
        await asyncio.sleep(POLL_S)
    raise AssertionError(f"it did not become true within {within_s:g} seconds")


def until(condition: Callable[[], object], *, within_s: float = 20) -> None:
    """The same where no event loop runs."""
    deadline = monotonic() + within_s
    while not condition():
        if monotonic() > deadline:
            raise AssertionError(f"it did not become true within {within_s:g} seconds")
        sleep(POLL_S)
