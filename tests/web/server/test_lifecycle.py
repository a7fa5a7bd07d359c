from __future__ import annotations

import asyncio

from proxy.web.server.lifecycle import BREAK_OFF_S, POLL_S, QUIET_S, Lifecycle
from tests.support.virtual_time import now_s, run


async def serve(lifecycle: Lifecycle, seconds: float, settle_s: float = 0) -> str:
    """A request; one that is cancelled takes ``settle_s`` more seconds to settle."""
    task = lifecycle.begin()
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await asyncio.sleep(settle_s)
        return "settled"
    else:
        return "answered"
    finally:
        lifecycle.end(task)


def test_draining_waits_for_what_is_in_flight_and_no_longer() -> None:
    async def stop() -> tuple[int, float, list[str]]:
        lifecycle = Lifecycle()
        requests = [asyncio.create_task(serve(lifecycle, seconds)) for seconds in (1, 3)]
        await asyncio.sleep(0)
        assert lifecycle.in_flight == 2
        broken_off = await lifecycle.drain(30)
        return broken_off, now_s(), [each.result() for each in requests]

    assert run(stop()) == (0, 3, ["answered", "answered"])


def test_with_nothing_in_flight_it_ends_at_once() -> None:
    async def stop() -> tuple[int, float]:
        return await Lifecycle().drain(30), now_s()

    assert run(stop()) == (0, 0)


def test_what_is_late_is_broken_off_and_has_time_to_settle() -> None:
    async def stop() -> tuple[int, float, list[str]]:
        lifecycle = Lifecycle()
        requests = [asyncio.create_task(serve(lifecycle, seconds, settle_s=2)) for seconds in (1, 100)]
        await asyncio.sleep(0)
        broken_off = await lifecycle.drain(30)
        return broken_off, now_s(), [each.result() for each in requests]

    assert run(stop()) == (1, 32, ["answered", "settled"])


def test_what_never_settles_holds_nobody_up_for_ever() -> None:
    async def stop() -> tuple[int, float]:
        lifecycle = Lifecycle()
        request = asyncio.create_task(serve(lifecycle, 100, settle_s=1_000))
        await asyncio.sleep(0)
        broken_off = await lifecycle.drain(30)
        took_s = now_s()
        request.cancel()
        await asyncio.wait((request,))
        return broken_off, took_s

    assert run(stop()) == (1, 30 + BREAK_OFF_S)


def test_it_is_quiet_a_second_after_the_last_request_began_and_ended() -> None:
    async def leave() -> float:
        lifecycle = Lifecycle()

        async def come() -> None:
            await serve(lifecycle, 2)
            await asyncio.sleep(QUIET_S / 2)
            await serve(lifecycle, 0)

        coming = asyncio.create_task(come())
        took_s = await lifecycle.until_quiet(30)
        await coming
        return took_s

    last_s = 2 + QUIET_S / 2
    assert last_s + QUIET_S <= run(leave()) <= last_s + QUIET_S + 3 * POLL_S


def test_where_it_is_never_quiet_the_time_given_is_the_end() -> None:
    async def leave() -> float:
        lifecycle = Lifecycle()
        request = asyncio.create_task(serve(lifecycle, 100))
        took_s = await lifecycle.until_quiet(30)
        request.cancel()
        await asyncio.wait((request,))
        return took_s

    assert run(leave()) == 30
