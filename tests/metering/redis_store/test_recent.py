from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.connection import Call
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import Script, load_script
from proxy.metering.redis_store import recent
from proxy.metering.redis_store.recent import KEPT_S, MEMORY_S, RecentSettlements
from proxy.telemetry.metrics import Metrics
from tests.support.virtual_time import run

LOST = "lightmeter_reposted_settlements_total"


class Runner(ScriptRunner):
    """A store that is given calls, and answers them when the test says so."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def submit_again(self, script: Script, command: bytes) -> Call:
        call = Call(script, command, command, asyncio.get_running_loop().create_future())
        self.calls.append(call)
        return call

    def place_of(self, command: bytes) -> object:
        return command[:1] if len(command) > 1 else None

    @property
    def sent(self) -> list[bytes]:
        return [call.id for call in self.calls]


class Bench:
    def __init__(self) -> None:
        self.runner, self.metrics = Runner(), Metrics()
        self.script = load_script("settle")
        self.recent = RecentSettlements(self.runner, self.script, self.metrics)

    async def add(self, *names: str, every_s: float = 0) -> None:
        for name in names:
            self.recent.add(name.encode(), f"entry of {name}".encode())
            await asyncio.sleep(every_s)

    async def post_again(self) -> list[bytes]:
        self.recent.post_again()
        return self.runner.sent

    @property
    def lost(self) -> float | None:
        return self.metrics.registry.get_sample_value(LOST)


def test_what_was_just_stored_is_posted_again_as_it_was_sent_in_its_order() -> None:
    async def connect() -> list[bytes]:
        bench = Bench()
        await bench.add("a", "b", "c", every_s=MEMORY_S / 3)
        sent = await bench.post_again()
        assert {call.script for call in bench.runner.calls} == {bench.script}
        return sent

    assert run(connect()) == [b"a", b"b", b"c"]


def test_what_a_node_that_is_away_had_stored_is_not_forgotten_while_others_go_on() -> None:
    async def connect() -> list[bytes]:
        bench = Bench()
        await bench.add("a1", "a2", every_s=0.1)
        await bench.add(*(f"b{number}" for number in range(30)), every_s=1)
        await bench.post_again()
        return bench.runner.sent

    assert run(connect()) == [b"a1", b"a2", b"b26", b"b27", b"b28", b"b29"]


def test_what_nobody_took_over_is_forgotten_in_the_end() -> None:
    async def connect() -> list[bytes]:
        bench = Bench()
        await bench.add("a1", every_s=KEPT_S + 1)
        await bench.add("b1")
        return await bench.post_again()

    assert run(connect()) == [b"b1"]


def test_what_is_older_than_the_memory_is_forgotten_with_the_next_one() -> None:
    async def connect() -> list[bytes]:
        bench = Bench()
        await bench.add("a", every_s=0.5)
        await bench.add("b", every_s=MEMORY_S)
        # At this moment "b" is just as old as the memory is long, and "a" a little older.
        await bench.add("c")
        return await bench.post_again()

    assert run(connect()) == [b"b", b"c"]


def test_each_new_connection_has_all_of_them_posted_again() -> None:
    async def connect() -> list[bytes]:
        bench = Bench()
        await bench.add("a", "b")
        await bench.post_again()
        return await bench.post_again()

    assert run(connect()) == [b"a", b"b", b"a", b"b"]


def test_before_the_first_settlement_there_is_nothing_to_post() -> None:
    async def connect() -> list[bytes]:
        return await Bench().post_again()

    assert run(connect()) == []


def test_it_holds_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "LIMIT", 3)

    async def connect() -> list[bytes]:
        bench = Bench()
        await bench.add(*"abcde")
        return await bench.post_again()

    assert run(connect()) == [b"c", b"d", b"e"]


def answered(*reply: Any) -> Callable[[asyncio.Future[list[Any]]], None]:
    return lambda future: future.set_result(list(reply))


def failed(error: Exception) -> Callable[[asyncio.Future[list[Any]]], None]:
    return lambda future: future.set_exception(error)


@pytest.mark.parametrize(
    ("end", "was_lost"),
    [
        (answered(b"settled", b"entry of a"), False),
        (answered(b"settled", b"another entry"), True),
        # The store has forgotten it on purpose, and makes no entry.
        (answered(b"old"), False),
        # It stays in the memory, and is posted again on the next connection.
        (failed(StoreUnavailable()), False),
        (lambda future: future.cancel(), False),
    ],
    ids=["the same entry", "a new entry", "old", "failed", "cancelled"],
)
def test_only_a_new_entry_tells_that_the_store_had_lost_it(
    end: Callable[[asyncio.Future[list[Any]]], None], *, was_lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def connect() -> float | None:
        bench, unhandled = Bench(), []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unhandled.append(context))
        await bench.add("a")
        await bench.post_again()
        assert bench.lost == 0
        end(bench.runner.calls[0].reply)
        await asyncio.sleep(0)
        bench.runner.calls.clear()
        assert unhandled == []
        return bench.lost

    with caplog.at_level(logging.ERROR):
        assert run(connect()) == was_lost
    assert [record.getMessage() for record in caplog.records] == (
        ["the store had lost the settlement of a; it has been posted again"] if was_lost else []
    )
