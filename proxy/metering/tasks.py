"""Ending tasks that speak to the store."""

from __future__ import annotations

import asyncio
from typing import Any

PATIENCE_S = 0.2


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` until it has ended, and take no notice of how.

    Once is not enough: redis-py awaits its connections with ``asyncio.wait_for``, which in Python 3.11 may lose a
    cancellation (https://github.com/python/cpython/issues/86296), and the task would go on for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=PATIENCE_S)
    if not task.cancelled():
        # Read, or asyncio complains that nobody did.
        task.exception()
