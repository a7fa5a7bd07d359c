from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from pytest_aiohttp import AiohttpClient

from proxy.domain.errors import ProxyError, RateLimitExceeded
from proxy.telemetry.observation import request_ids
from proxy.web.admin import access as admin_access
from proxy.web.admin.access import (
    ADDRESSES_LIMIT,
    FIRST_DELAY_S,
    FORGET_AFTER_S,
    LONGEST_DELAY_S,
    WAITING_LIMIT_A_NETWORK,
    WrongTokens,
    require_token,
)
from proxy.web.admin.roles import AdminToken, Role
from proxy.web.middleware.errors import error_response
from proxy.web.middleware.observe import number
from tests.support.polling import eventually


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
    for index in range(3 * ADDRESSES_LIMIT):
        wrong.delay_s(f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}")
    assert len(wrong._failures) == ADDRESSES_LIMIT


async def test_a_network_of_ipv6_is_one_address() -> None:
    wrong = WrongTokens(Clock())
    assert wrong.delay_s("2001:db8::1") == FIRST_DELAY_S
    assert wrong.delay_s("2001:db8::ffff:1") == FIRST_DELAY_S * 2
    assert wrong.delay_s("2001:db8:0:1::1") == FIRST_DELAY_S


def hold_back(wrong: WrongTokens, addresses: Iterable[str]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(wrong.wait(address)) for address in addresses]


async def test_a_flood_from_one_network_learns_nothing_and_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_access, "FIRST_DELAY_S", 60.0)
    monkeypatch.setattr(admin_access, "LONGEST_DELAY_S", 60.0)
    wrong = WrongTokens(Clock())
    waiting = hold_back(wrong, ["192.0.2.1"] * WAITING_LIMIT_A_NETWORK)
    await asyncio.sleep(0)
    with pytest.raises(RateLimitExceeded, match="not looked at"):
        wrong.check_flood("192.0.2.1")
    wrong.check_flood("192.0.2.2")
    await wrong.let_go(web.Application())
    await asyncio.gather(*waiting)
    wrong.check_flood("192.0.2.1")


async def test_a_flood_from_everywhere_is_bounded_and_stops_nobody_who_sent_no_wrong_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin_access, "WAITING_LIMIT", 20)
    monkeypatch.setattr(admin_access, "FIRST_DELAY_S", 60.0)
    wrong = WrongTokens(Clock())
    waiting = hold_back(wrong, [f"192.0.2.{number}" for number in range(20)])
    await asyncio.sleep(0)
    with pytest.raises(RateLimitExceeded):
        wrong.check_flood("192.0.2.19")
    wrong.check_flood("192.0.2.20")
    assert len(wrong._waiting) == 20
    await wrong.let_go(web.Application())
    await asyncio.gather(*waiting)
    assert not wrong._waiting


@web.middleware
async def answer_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ProxyError as error:
        return error_response(error)


async def test_a_right_token_is_not_looked_at_in_a_flood_from_its_own_network(
    aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_access, "WAITING_LIMIT_A_NETWORK", 5)
    monkeypatch.setattr(admin_access, "FIRST_DELAY_S", 60.0)
    monkeypatch.setattr(admin_access, "LONGEST_DELAY_S", 60.0)
    wrong = WrongTokens()
    right = AdminToken.of("admin", Role.ADMIN, "the-token-of-the-tests")
    app = web.Application(middlewares=[number(request_ids()), answer_refusals, require_token((right,), wrong, {})])

    async def answer(_request: web.Request) -> web.Response:
        return web.Response()

    app.router.add_get("/admin/v1/teams", answer)
    client = await aiohttp_client(app)

    async def status(token: str) -> int:
        async with client.get("/admin/v1/teams", headers={"Authorization": f"Bearer {token}"}) as response:
            return response.status

    guesses = [asyncio.create_task(status("a-guess-of-a-stranger")) for _ in range(5)]
    await eventually(lambda: wrong._waiting.total() == 5)
    assert [await status("a-guess-of-a-stranger"), await status("the-token-of-the-tests")] == [429, 429]
    await wrong.let_go(app)
    assert await asyncio.gather(*guesses) == [401] * 5
    assert await status("the-token-of-the-tests") == 200


@pytest.mark.parametrize("text", ["", "the-token-of-the-test", "the-token-of-the-tests ", "\udcff"])
def test_only_the_whole_text_is_the_token(text: str) -> None:
    token = AdminToken.of("admin", Role.ADMIN, "the-token-of-the-tests")
    other = AdminToken.of("ci", Role.VIEWER, "another-token-of-the-tests")
    assert admin_access.find_token((token, other), text) is None
    assert admin_access.find_token((token, other), "the-token-of-the-tests") is token
    assert admin_access.find_token((token, other), "another-token-of-the-tests") is other


def test_an_empty_token_opens_nothing_even_if_it_were_one() -> None:
    assert admin_access.bearer(["Bearer "]) == ""
    assert admin_access.bearer(["Bearer a", "Bearer a"]) == ""
    assert admin_access.bearer(["Basic a"]) == ""
    assert admin_access.bearer(["bearer  a "]) == "a"
