"""Ending tasks, also those that lose a cancellation."""

from __future__ import annotations

import asyncio

from proxy.metering.tasks import end_task


async def test_a_task_that_loses_a_cancellation_ends_all_the_same() -> None:
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            lost += 1
        await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end_task(task)
    assert task.cancelled()
    assert lost == 1


async def test_how_a_task_ended_is_no_matter() -> None:
    async def fail() -> None:
        raise OSError

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await end_task(task)
    await end_task(task)
    assert isinstance(task.exception(), OSError)
