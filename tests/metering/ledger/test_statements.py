"""Statements on a real store: entries of past months stand in it, and are counted, stated and trimmed in any order."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from decimal import Decimal
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import NotFound, StillCounting, StoreBusy
from proxy.domain.money import Money
from proxy.metering.ledger import statements as store_statements
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.ledger.retention import LedgerRetention
from proxy.metering.ledger.statements import Stated, Statements
from proxy.metering.redis.scripts import Script
from proxy.metering.redis_store.facts import utc_day
from tests.metering.conftest import MODEL, Bench, open_bench
from tests.support.polling import eventually

DAY_MS = 86_400_000
LEDGER = "lm:{acme}:ledger"


def now_ms() -> int:
    return int(time.time() * 1_000)


def days_ago(days: float) -> int:
    return now_ms() - int(days * DAY_MS)


def month_of(at_ms: int) -> str:
    return utc_day(at_ms)[:7]


@pytest.fixture
def statements(bench: Bench) -> Statements:
    return Statements(bench.runner, bench.pool, bench.store)


@pytest.fixture
def books(bench: Bench) -> LedgerBooks:
    return LedgerBooks(bench.runner, bench.pool, bench.store)


async def write(
    bench: Bench,
    at_ms: int,
    *,
    kind: str = "request",
    charged: int = 5_000,
    admitted_ms: int | None = None,
    **more: Any,
) -> str:
    """An entry as it was written at a moment that is past."""
    facts = {"model": more.pop("model", MODEL), "admitted_ms": admitted_ms or at_ms}
    fields: Any = {"kind": kind, "key": "acme_0000000001", "facts": orjson.dumps(facts)}
    if kind == "grant":
        fields |= {"quota_units": charged, "facts": b"{}"}
    else:
        fields |= {"request": f"req_{at_ms}", "charged": charged, "images": 1, "overage": 0, **more}
    stream_id: Any = await bench.redis.xadd(LEDGER, fields, id=f"{at_ms}-*")
    return str(stream_id.decode())


async def check_sums(bench: Bench, statements: Statements) -> list[Stated]:
    """All statements together are the ledger, what was trimmed of it and what stands in it, at this moment."""
    found = await statements.list_all("acme")
    for earlier, later in pairwise(found):
        assert later.statement.after == earlier.statement.to
    sums: Counter[str] = Counter()
    trimmed: Any = await bench.redis.hgetall("lm:{acme}:checkpoint:")
    for name in ("posted", "images", "overage"):
        sums[name] = int(trimmed.get(name.encode(), 0))
    ledger: Any = await bench.redis.xrange(LEDGER)
    for _id, fields in ledger:
        if fields[b"kind"] != b"grant":
            charge = (fields[b"charged"], fields[b"images"], fields[b"overage"])
            sums.update(dict(zip(("posted", "images", "overage"), map(int, charge), strict=True)))
    figures = [each.statement.figures for each in found]
    assert sum(each.statement.quota_units for each in found) == sums["posted"]
    assert sum(each.get("images", 0) for each in figures) == sums["images"]
    assert sum(each.get("overage", 0) for each in figures) == sums["overage"]
    for each in found:
        assert sum(model["quota_units"] for model in each.statement.by_model.values()) == each.statement.quota_units
    return found


async def test_a_statement_has_what_the_ledger_has_of_a_month(bench: Bench, statements: Statements) -> None:
    key = await bench.make_key(100_000)
    old = days_ago(70)
    first = await write(bench, old)
    second = await write(bench, old + 1, model="other", charged=7)
    reservation = await bench.admit(key, "req_1", 5_000)
    delivery = Delivery(images=1)
    delivery.end(complete=True)
    await bench.store.settle(settle(reservation, delivery))
    past = await statements.read("acme", month_of(old))
    assert past.stated_ms is not None
    assert (past.statement.after, past.statement.to, past.statement.entries) == ("0-0", second, 2)
    assert (past.statement.quota_units, past.statement.by_model["other"]) == (5_007, {"images": 1, "quota_units": 7})
    now = await statements.read("acme", month_of(now_ms()))
    assert (now.stated_ms, now.statement.quota_units, now.statement.entries) == (None, 5_000, 1)
    assert now.statement.by_key == {key.key_id: {"images": 1, "quota_units": 5_000}}
    found = await check_sums(bench, statements)
    assert [each.statement.month for each in found] == sorted({month_of(days_ago(days)) for days in range(71)})
    assert first < second
    for month in ("2000-01", "2999-12"):
        with pytest.raises(NotFound, match="There is no statement of 'acme' for"):
            await statements.read("acme", month)


async def test_a_team_without_a_ledger_has_an_empty_statement_of_this_month_and_nothing_is_written(
    bench: Bench, statements: Statements
) -> None:
    (only,) = await statements.list_all("acme")
    assert (only.statement.month, only.statement.entries, only.stated_ms) == (month_of(now_ms()), 0, None)
    assert await statements.read("acme", month_of(now_ms())) == only
    assert await bench.redis.keys("*statements*") == []


async def test_late_settlements_and_refunds_go_to_the_open_statement_and_change_no_other(
    bench: Bench, statements: Statements, books: LedgerBooks
) -> None:
    await bench.make_key(100_000)
    old = days_ago(70)
    charged = await write(bench, old)
    before = await statements.read("acme", month_of(old))
    key = (await bench.keys.page("acme", cursor=None, limit=1)).items[0].id
    await bench.redis.hset(f"lm:{{acme}}:key:{key}", "name", "x")
    late = await write(bench, now_ms(), kind="late", charged=300, admitted_ms=old)
    refund = await books.refund("acme", charged, reason="black")
    assert await statements.read("acme", month_of(old)) == before
    open_one = (await statements.read("acme", month_of(now_ms()))).statement
    assert open_one.late == {month_of(old): {"entries": 2, "images": 1, "quota_units": -4_700}}
    assert open_one.late_entries == [f"acme_{late}", refund]
    assert (open_one.figures["refunded"], open_one.figures["charged"]) == (5_000, 300)
    await check_sums(bench, statements)


async def test_what_a_unit_was_worth_stays_as_it_was_when_the_month_was_stated(bench: Bench) -> None:
    old = days_ago(70)
    await write(bench, old)
    for worth in (100_000, 5):
        money = Money(Decimal(worth))
        statements = Statements(bench.runner, bench.pool, bench.store, money)
        assert (await statements.read("acme", month_of(old))).money == Money(Decimal(100_000))
        assert (await statements.read("acme", month_of(now_ms()))).money == money


async def test_a_month_is_stated_before_it_is_trimmed(bench: Bench, statements: Statements, books: LedgerBooks) -> None:
    for days in (100, 70, 40, 10):
        await write(bench, days_ago(days))
    await statements.advance("acme", age_ms=30 * DAY_MS)
    assert (await books.trim("acme", keep_ms=30 * DAY_MS)).entries == 3
    found = await check_sums(bench, statements)
    assert [each.statement.brought_forward for each in found] == [{}] * len(found)
    assert sum(each.statement.entries for each in found) == 4


async def test_a_ledger_that_cannot_be_counted_is_not_trimmed_and_stops_no_other(
    bench: Bench, statements: Statements, books: LedgerBooks, caplog: pytest.LogCaptureFixture
) -> None:
    for team in ("acme", "other"):
        await bench.make_key(None, team=team)
        await bench.redis.xadd(f"lm:{{{team}}}:ledger", {"kind": "request"}, id=f"{days_ago(40)}-0")
    good: Any = {"kind": "grant", "key": "", "quota_units": 5, "facts": "{}"}
    await bench.redis.delete("lm:{other}:ledger")
    await bench.redis.xadd("lm:{other}:ledger", good, id=f"{days_ago(40)}-0")
    retention = LedgerRetention(books, statements, days=30)
    retention.start()

    async def is_trimmed() -> bool:
        return not await bench.redis.xlen("lm:{other}:ledger")

    await eventually(is_trimmed)
    await retention.stop()
    assert await bench.redis.xlen(LEDGER) == 1
    assert "the statements of acme could not be counted" in caplog.text


async def test_what_was_trimmed_before_there_were_statements_is_brought_forward(
    bench: Bench, statements: Statements, books: LedgerBooks
) -> None:
    for days in (100, 70, 40):
        last = await write(bench, days_ago(days), charged=days)
    await write(bench, days_ago(10), charged=10)
    await books.trim("acme", keep_ms=30 * DAY_MS)
    found = await check_sums(bench, statements)
    assert found[0].statement.month == month_of(days_ago(40))
    assert found[0].statement.brought_forward == {"images": 3, "quota_units": 210, "overage": 0}
    assert found[0].statement.after == "0-0"
    assert last in {each.statement.to for each in found}


async def test_many_who_state_at_once_state_each_month_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_statements, "ENTRIES_A_READ", 3)
    monkeypatch.setattr(store_statements, "ENTRIES_A_STEP", 6)
    for number in range(40):
        await write(bench, days_ago(120) + number * 2 * DAY_MS)
    many = [Statements(bench.runner, bench.pool, bench.store) for _ in range(5)]
    lists = await asyncio.gather(*(each.list_all("acme") for each in many), return_exceptions=True)
    assert [each for each in lists if isinstance(each, BaseException) and not isinstance(each, StoreBusy)] == []
    found = await check_sums(bench, many[0])
    assert sum(each.statement.entries for each in found) == 40


async def test_of_many_who_ask_one_gateway_at_once_one_counts(
    bench: Bench, statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_statements, "ENTRIES_A_READ", 3)
    monkeypatch.setattr(store_statements, "ENTRIES_A_STEP", 6)
    for number in range(40):
        await write(bench, days_ago(120) + number * 2 * DAY_MS)
    run, steps = bench.runner.run, 0

    async def run_counted(script: Script, *call: Any) -> list[object]:
        nonlocal steps
        steps += script.name == "state"
        return await run(script, *call)

    with patch.object(bench.runner, "run", run_counted):
        lists = await asyncio.gather(*(statements.list_all("acme") for _ in range(10)))
    assert {sum(each.statement.entries for each in found) for found in lists} == {40}
    assert steps == 40 // 6 + 1


async def test_a_ledger_too_long_for_one_answer_is_counted_by_those_who_ask_again(
    bench: Bench, statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_statements, "ENTRIES_A_READ", 3)
    monkeypatch.setattr(store_statements, "ENTRIES_A_STEP", 6)
    monkeypatch.setattr(store_statements, "ANSWER_WITHIN_S", 0.0)
    for number in range(20):
        await write(bench, days_ago(40) + number)
    for _ in range(20 // 6):
        with pytest.raises(StillCounting, match="'acme' is long"):
            await statements.list_all("acme")
    (*_, stated, _open) = await statements.list_all("acme")
    assert stated.statement.entries == 20


async def test_a_call_whose_reply_was_lost_states_once(bench: Bench, statements: Statements) -> None:
    await write(bench, days_ago(70))
    run = bench.runner.run

    async def run_twice(script: Script, *call: Any) -> list[object]:
        first = await run(script, *call)
        if script.name == "state":
            assert await run(script, *call) == first
        return first

    with patch.object(bench.runner, "run", run_twice):
        await statements.advance("acme")
    assert await bench.redis.hget("lm:{acme}:statements", "version") == b"1"
    await check_sums(bench, statements)


# --- In any order -----------------------------------------------------------------------------------------------------

entries = st.tuples(
    st.floats(0, 25),
    st.sampled_from(["request", "request", "late", "refund", "grant"]),
    st.sampled_from([MODEL, "with:colon"]),
    st.integers(0, 40),
    st.floats(0, 40),
)
steps = st.lists(st.one_of(entries, st.sampled_from(["state", "retain", "trim"])), min_size=1, max_size=25)


async def take_each(bench: Bench, taken: list[Any]) -> None:
    """Each step at a moment of the past that is later than the one before."""
    await bench.redis.flushall()
    statements = Statements(bench.runner, bench.pool, bench.store)
    books = LedgerBooks(bench.runner, bench.pool, bench.store)
    at = 500.0
    stated: dict[str, Stated] = {}
    for step in taken:
        if step in ("state", "retain"):
            await statements.advance("acme", age_ms=int(at * DAY_MS))
        if step in ("trim", "retain"):
            await books.trim("acme", keep_ms=int(at * DAY_MS))
        if not isinstance(step, str):
            passed, kind, model, units, late_days = step
            at = max(0.01, at - passed - 0.000_1)
            charged = -units if kind == "refund" else units
            more = {} if kind == "grant" else {"model": model}
            admitted_ms = days_ago(at + late_days)
            await write(bench, days_ago(at), kind=kind, charged=charged, admitted_ms=admitted_ms, **more)
        kept: Any = await bench.redis.hgetall("lm:{acme}:statements")
        for name in kept:
            if name[:1].isdigit():
                month = name.decode()
                now = await statements.read("acme", month) if month not in stated else stated[month]
                stated.setdefault(month, now)
    found = {each.statement.month: each for each in await check_sums(bench, statements)}
    for month, was in stated.items():
        assert found[month] == was


def test_in_any_order_all_statements_are_the_ledger_and_none_that_is_stated_changes(shared_store_url: str) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def open_it() -> Bench:
            return await stack.enter_async_context(open_bench(shared_store_url))

        bench = runner.run(open_it())

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(steps)
        def check(taken: list[Any]) -> None:
            runner.run(take_each(bench, taken))

        check()
        runner.run(stack.aclose())
