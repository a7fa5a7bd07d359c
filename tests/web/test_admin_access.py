from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from proxy.web import admin_access
from proxy.web.admin_access import (
    ADDRESSES_LIMIT,
    FIRST_DELAY_S,
    FORGET_AFTER_S,
    LONGEST_DELAY_S,
    AdminToken,
    Role,
    WrongTokens,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_the_delay_doubles_up_to_its_limit_for_each_address_apart() -> None:
    wrong = WrongTokens(Clock())
    delays = [wrong.delay_s("192.0.2.1") for _ in range(10)]
    assert delays[:3] == [FIRST_DELAY_S, FIRST_DELAY_S * 2, FIRST_DELAY_S * 4]
    assert delays[-1] == LONGEST_DELAY_S
    assert [wrong.delay_s("192.0.2.1") for _ in range(2_000)][-1] == LONGEST_DELAY_S
    assert wrong.delay_s("192.0.2.2") == FIRST_DELAY_S


async def test_failures_are_forgotten() -> None:
    clock = Clock()
    wrong = WrongTokens(clock)
    for _ in range(5):
        wrong.delay_s("192.0.2.1")
    clock.now += FORGET_AFTER_S + 1
    assert wrong.delay_s("192.0.2.1") == FIRST_DELAY_S


async def test_memory_is_bounded_whatever_the_number_of_addresses() -> None:
    wrong = WrongTokens(Clock())
    for number in range(3 * ADDRESSES_LIMIT):
        wrong.delay_s(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")
    assert len(wrong._failures) == ADDRESSES_LIMIT


async def test_a_network_of_ipv6_is_one_address() -> None:
    wrong = WrongTokens(Clock())
    assert wrong.delay_s("2001:db8::1") == FIRST_DELAY_S
    assert wrong.delay_s("2001:db8::ffff:1") == FIRST_DELAY_S * 2
    assert wrong.delay_s("2001:db8:0:1::1") == FIRST_DELAY_S


async def test_past_the_limit_nobody_waits_and_at_the_end_everybody_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_access, "WAITING_LIMIT", 3)
    monkeypatch.setattr(admin_access, "FIRST_DELAY_S", 60.0)
    monkeypatch.setattr(admin_access, "LONGEST_DELAY_S", 60.0)
    wrong = WrongTokens(Clock())
    waiting = [asyncio.create_task(wrong.wait("192.0.2.1")) for _ in range(3)]
    await asyncio.sleep(0)
    await wrong.wait("192.0.2.1")
    assert not any(task.done() for task in waiting)
    await wrong.let_go(web.Application())
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("text", ["", "the-token-of-the-test", "the-token-of-the-tests ", "\udcff"])
def test_only_the_whole_text_is_the_token(text: str) -> None:
    token = AdminToken.of("admin", Role.ADMIN, "the-token-of-the-tests")
    other = AdminToken.of("ci", Role.VIEWER, "another-token-of-the-tests")
    assert admin_access._find((token, other), text) is None
    assert admin_access._find((token, other), "the-token-of-the-tests") is token
    assert admin_access._find((token, other), "another-token-of-the-tests") is other


def test_an_empty_token_opens_nothing_even_if_it_were_one() -> None:
    assert admin_access._bearer(["Bearer "]) == ""
    assert admin_access._bearer(["Bearer a", "Bearer a"]) == ""
    assert admin_access._bearer(["Basic a"]) == ""
    assert admin_access._bearer(["bearer  a "]) == "a"
