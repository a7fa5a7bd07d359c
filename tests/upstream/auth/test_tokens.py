"""Tokens are fetched ahead of their end, one at a time, and the old one is used while the new one is late."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic, time

import pytest

from proxy.domain.errors import NoCredentials
from proxy.telemetry.secrets import KNOWN_SECRETS
from proxy.upstream.auth import tokens
from proxy.upstream.auth.auth import Token
from proxy.upstream.auth.tokens import Tokens
from tests.support.polling import eventually


class Source:
    """Gives what ``answer`` gives, in the thread in which it is asked, and counts who is in there."""

    advice = "Look there."

    def __init__(self, answer: Callable[[int], Token]) -> None:
        self.answer = answer
        self.fetches = 0
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def fetch(self) -> Token:
        with self._lock:
            self.fetches += 1
            number = self.fetches
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self.answer(number)
        finally:
            with self._lock:
                self.at_once -= 1


def lasting(seconds: float) -> Callable[[int], Token]:
    return lambda number: Token(f"token-number-{number}", time() + seconds)


async def test_all_who_ask_at_the_start_wait_for_one_fetch() -> None:
    may_end = threading.Event()

    def answer(number: int) -> Token:
        may_end.wait(10)
        return lasting(3_600)(number)

    source = Source(answer)
    held = Tokens("acme", source)
    try:
        asking = [asyncio.create_task(held.current()) for _ in range(50)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in asking)
        may_end.set()
        given = await asyncio.gather(*asking)
        assert {each.headers["Authorization"] for each in given} == {"Bearer token-number-1"}
        assert source.fetches == 1
        assert KNOWN_SECRETS.are_in("token-number-1")
        assert "token-number-1" not in repr(given[0])
    finally:
        await held.close()


def without_waiting(held: Tokens) -> str:
    """The token of now. Fails where a request would wait for one."""
    asked = held.current()
    with pytest.raises(StopIteration) as given:
        asked.send(None)
    return str(given.value.value.headers["Authorization"].removeprefix("Bearer token-number-"))


async def test_a_token_is_replaced_before_its_end_and_no_request_waits_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So that 20 seconds are left of each when the next one comes, on a machine that is busy too.
    life_s, fresh_s = 20.2, 0.2
    monkeypatch.setattr(tokens, "AHEAD_SHARE", 1 - fresh_s / life_s)
    monkeypatch.setattr(tokens, "PAUSE_LEAST_S", 0.01)
    source, began = Source(lasting(life_s)), monotonic()
    held = Tokens("acme", source)
    try:
        await held.current()
        seen = [without_waiting(held)]
        while len(seen) < 4:
            assert monotonic() - began < life_s
            await asyncio.sleep(0.01)
            if without_waiting(held) != seen[-1]:
                seen.append(without_waiting(held))
        assert monotonic() - began > 3 * 0.95 * fresh_s
        assert source.most_at_once == 1
    finally:
        await held.close()


async def test_the_old_token_is_used_while_the_new_one_is_late_and_no_longer_than_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_end = threading.Event()
    now_s = 1_000_000.0

    def answer(number: int) -> Token:
        if number == 2:
            may_end.wait(60)
        return Token(f"token-number-{number}", now_s + (0.4 if number == 1 else 3_600))

    monkeypatch.setattr(tokens, "PAUSE_LEAST_S", 0.01)
    monkeypatch.setattr(tokens, "time", lambda: now_s)
    source = Source(answer)
    held = Tokens("acme", source)
    try:
        assert (await held.current()).headers["Authorization"].endswith("1")
        await eventually(lambda: source.fetches == 2)
        assert without_waiting(held) == "1"
        now_s += 0.4
        waiting = asyncio.create_task(held.current())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        may_end.set()
        assert (await waiting).headers["Authorization"].endswith("2")
        assert source.fetches == 2
    finally:
        may_end.set()
        await held.close()


async def test_a_token_that_cannot_be_had_is_told_and_asked_for_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "PAUSE_LEAST_S", 0.05)

    def answer(number: int) -> Token:
        if number < 3:
            raise OSError("no route\nto the token endpoint")
        return Token("token-number-3", time() + (3_600 if number > 3 else -1))

    source = Source(answer)
    held = Tokens("acme", source)
    try:
        with pytest.raises(NoCredentials):
            await held.current()
        await eventually(lambda: source.fetches == 4)
        assert (await held.current()).headers["Authorization"] == "Bearer token-number-3"
        told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(told) == 3
        assert "provider acme: no token can be had (no route to the token endpoint)" in told[0]
        assert told[0].endswith("Look there.")
        assert "look at this machine's clock" in told[2]
    finally:
        await held.close()


async def test_whoever_waits_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "WAIT_S", 0.1)
    may_end = threading.Event()

    def answer(number: int) -> Token:
        may_end.wait(20)
        return lasting(9)(number)

    held = Tokens("acme", Source(answer))
    try:
        with pytest.raises(NoCredentials):
            await held.current()
    finally:
        may_end.set()
        await held.close()


async def test_a_token_that_ends_while_the_machine_sleeps_is_replaced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slept_s = 0.0
    monkeypatch.setattr(tokens, "time", lambda: time() + slept_s)
    source = Source(lambda number: Token(f"token-number-{number}", time() + slept_s + 3_600))
    held = Tokens("acme", source)
    try:
        assert (await held.current()).headers["Authorization"].endswith("1")
        slept_s = 7_200
        given = await asyncio.gather(*(held.current() for _ in range(20)))
        assert {each.headers["Authorization"] for each in given} == {"Bearer token-number-2"}
        assert source.fetches == 2
    finally:
        await held.close()


async def test_one_that_may_be_another_one_is_fetched_again_while_it_is_good() -> None:
    def answer(number: int) -> Token:
        return Token(f"token-number-{number}", time() + 3_600, again_s=0.01)

    source = Source(answer)
    held = Tokens("acme", source)
    try:
        assert (await held.current()).headers["Authorization"] == "Bearer token-number-1"
        await eventually(lambda: source.fetches >= 3)
        assert (await held.current()).headers["Authorization"] != "Bearer token-number-1"
    finally:
        await held.close()
