from __future__ import annotations

import asyncio

import pytest

from proxy.domain.errors import ClientGone, UpstreamTimeout
from proxy.upstream.watchdog import TICK_S, Watch, Watchdog
from tests.support.virtual_time import now_s, run

# Its clock looks at a few moments only: an interruption is at most this late.
LATE_S = TICK_S + 0.001


def interrupt(watchdog: Watchdog) -> None:
    watchdog.interrupt(UpstreamTimeout("late"))


async def stay(watchdog: Watchdog, limit_s: float, *pauses_s: float) -> None:
    """Phases of ``limit_s`` seconds, of which each really takes one of ``pauses_s``."""
    async with watchdog:
        for pause_s in pauses_s:
            watchdog.phase(limit_s, lambda: interrupt(watchdog))
            await asyncio.sleep(pause_s)


def test_a_phase_that_outlasts_its_time_raises_its_error_and_no_cancellation_stays() -> None:
    async def wait() -> float:
        watchdog = Watchdog(Watch(), total_s=60)
        with pytest.raises(UpstreamTimeout, match="late"):
            await stay(watchdog, 2, 30)
        took_s = now_s()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        return took_s

    assert 2 <= run(wait()) <= 2 + LATE_S


def test_each_phase_has_its_time_anew_until_all_of_them_are_over_theirs() -> None:
    async def wait() -> float:
        watchdog = Watchdog(Watch(), total_s=5)
        with pytest.raises(UpstreamTimeout):
            await stay(watchdog, 2, 1.9, 1.9, 1.9, 1.9)
        return now_s()

    assert 5 <= run(wait()) <= 5 + LATE_S


def test_what_was_not_the_providers_time_is_granted_and_an_uncounted_phase_may_go_past_the_end() -> None:
    async def wait() -> float:
        watchdog = Watchdog(Watch(), total_s=5)
        async with watchdog:
            watchdog.phase(20, lambda: interrupt(watchdog), counted=False)
            await asyncio.sleep(10)
            watchdog.grant(10)
            watchdog.phase(20, lambda: interrupt(watchdog))
            await asyncio.sleep(4)
        return now_s()

    assert run(wait()) == 14


def test_nobody_wants_the_answer_any_more() -> None:
    async def wait() -> float:
        watchdog = Watchdog(Watch(), total_s=60)
        watchdog.end_when(lambda: now_s() >= 3)
        with pytest.raises(ClientGone):
            await stay(watchdog, 30, 30)
        return now_s()

    assert 3 <= run(wait()) <= 3 + LATE_S


def test_who_cancels_the_task_as_well_is_obeyed() -> None:
    async def wait() -> None:
        watchdog = Watchdog(Watch(), total_s=60)

        async def watched() -> None:
            async with watchdog:
                watchdog.phase(1, lambda: interrupt(watchdog))
                try:
                    await asyncio.sleep(30)
                finally:
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(watched())

    run(wait())


def test_what_has_ended_is_looked_at_no_more() -> None:
    async def wait() -> int:
        watch, calls = Watch(), 0

        def count() -> None:
            nonlocal calls
            calls += 1

        async with Watchdog(watch, total_s=60) as watchdog:
            watchdog.phase(1, count)
            await asyncio.sleep(0.5)
        await asyncio.sleep(10)
        # The loop has no timer left either: nothing keeps the process awake.
        assert now_s() == 10.5
        return calls

    assert run(wait()) == 0
