from __future__ import annotations

import asyncio

import pytest

from proxy.web.keep_alive import KeepAlive
from tests.support.virtual_time import now_s, run


class Comments:
    def __init__(self, took_s: float = 0) -> None:
        self.at_s: list[float] = []
        self.ended = 0
        self._took_s = took_s

    async def send(self) -> None:
        self.at_s.append(now_s())
        await asyncio.sleep(self._took_s)
        self.ended += 1


def test_a_comment_is_sent_whenever_nothing_was_for_so_long() -> None:
    async def wait() -> list[float]:
        comments = Comments()
        async with KeepAlive(5, comments.send) as keep_alive:
            await asyncio.sleep(12)
            keep_alive.touch()
            await asyncio.sleep(7)
        return comments.at_s

    assert run(wait()) == [5, 10, 17]


def test_none_where_there_are_to_be_none() -> None:
    async def wait() -> list[float]:
        comments = Comments()
        async with KeepAlive(0, comments.send):
            await asyncio.sleep(1_000)
        return comments.at_s

    assert run(wait()) == []


def test_it_does_not_end_within_a_comment() -> None:
    async def wait() -> tuple[int, float]:
        comments = Comments(took_s=3)
        async with KeepAlive(5, comments.send):
            await asyncio.sleep(6)
        return comments.ended, now_s()

    assert run(wait()) == (1, 8)


def test_it_stops_also_where_the_answer_fails() -> None:
    async def wait() -> list[float]:
        comments = Comments()

        async def fail() -> None:
            async with KeepAlive(5, comments.send):
                await asyncio.sleep(6)
                raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            await fail()
        await asyncio.sleep(100)
        return comments.at_s

    assert run(wait()) == [5]
