from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.domain.api_key import Credential
from proxy.domain.billing.books import Books, compare
from proxy.domain.billing.settlement import Delivery, Reservation, Served, settle
from proxy.domain.errors import Conflict, InvalidRequest, NotFound
from proxy.metering.actor import NOBODY
from proxy.metering.ledger import books as ledger_books
from proxy.metering.ledger import retention as ledger_retention
from proxy.metering.ledger.books import LedgerBooks, Trimmed
from proxy.metering.ledger.pages import LedgerFilter
from proxy.metering.ledger.retention import LedgerRetention
from proxy.metering.ledger.shipped import ShippedLedger
from proxy.metering.ledger.statements import Statements
from proxy.metering.pages import Page
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store.facts import utc_day
from tests.metering.conftest import MODEL, Bench
from tests.support.polling import eventually


@pytest.fixture
def books(bench: Bench) -> LedgerBooks:
    return LedgerBooks(bench.runner, bench.pool, bench.store)


async def deliver(bench: Bench, reservation: Reservation, images: int = 1) -> str:
    delivery = Delivery(images=images, served=Served("sample", 200))
    delivery.end(complete=True)
    return await bench.store.settle(settle(reservation, delivery))


async def check(bench: Bench, books: LedgerBooks, key: Credential) -> None:
    """What ``verify`` compares: checkpoint, ledger and leases add up to the counters of key and team."""
    page = await books.read("acme", after="", limit=50)
    assert page.stray_leases == []
    entries = await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=1_000)
    for one in page.keys:
        if one.id not in ("", key.key_id):
            continue
        found, rebuilt = Books(), Books(reserved=sum(one.held_units.values()), held=one.held_reservations or 0)
        for name in ("posted", "overage", "images", "granted", "reserved", "held"):
            setattr(found, name, int(one.record.get(name, 0)))
            setattr(rebuilt, name, getattr(rebuilt, name) + int(one.checkpoint.get(name, 0)))
        found.usage.update({name: int(value) for name, value in one.usage.items()})
        trimmed = {name: int(value) for name, value in one.checkpoint.items() if name.startswith("usage:")}
        rebuilt.usage.update({name.removeprefix("usage:"): value for name, value in trimmed.items()})
        for entry in entries.items:
            if entry.facts["key"] == one.id or (one.id == "" and entry.kind != "grant"):
                rebuilt.add({"kind": entry.kind, **entry.facts}, utc_day(entry.facts.get("admitted_ms", 0)))
        for field, length in (("day", 10), ("month", 7)):
            window = utc_day(int(one.record[field]) * 86_400_000)[:length]
            found.windows[f"{window} posted"] = int(one.record[f"{field}_posted"])
            found.windows[f"{window} reserved"] = int(one.record[f"{field}_reserved"])
            rebuilt.count_window(window, one.held_units)
        assert list(compare("acme", one.id, found, rebuilt)) == []


async def test_a_refund_gives_the_units_back_once(bench: Bench, books: LedgerBooks) -> None:
    key = await bench.make_key(15_000)
    entry = await deliver(bench, await bench.admit(key, "req_1", 5_000), images=3)
    before = await bench.record(key)
    assert (before.quota.posted, before.overage_units) == (15_000, 10_000)
    refund = await books.refund("acme", entry, reason='they were "black"')
    record = await bench.record(key)
    assert (record.quota.posted, record.overage_units, record.images, record.quota.remaining) == (0, 0, 3, 15_000)
    with pytest.raises(Conflict, match=f"has been refunded already, by '{refund}'"):
        await books.refund("acme", entry, reason="again")
    page = await bench.ledger.list_entries(LedgerFilter(key_id=key.key_id), cursor=None, limit=10)
    last = page.items[-1]
    assert (last.kind, last.id) == ("refund", refund)
    assert last.facts["refunds"] == f"acme_{entry}"
    assert (last.facts["charged"], last.facts["overage"], last.facts["images"]) == (-15_000, -10_000, 0)
    assert (last.facts["reason"], last.facts["model"], last.facts["request"]) == ('they were "black"', MODEL, "req_1")
    _record, by_model, _by_day = await bench.keys.usage(key.key_id)
    assert (by_model[MODEL].quota_units, by_model[MODEL].images) == (0, 3)
    await bench.check_books(key)
    await check(bench, books, key)


async def test_refunds_at_once_reverse_once(bench: Bench, books: LedgerBooks) -> None:
    key = await bench.make_key(15_000)
    entry = await deliver(bench, await bench.admit(key, "req_1", 5_000))
    results = await asyncio.gather(
        *(books.refund("acme", entry, reason="x") for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(result, str) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 19
    assert (await bench.record(key)).quota.posted == 0
    await check(bench, books, key)


async def test_a_refund_whose_answer_was_lost_is_told_again(bench: Bench, books: LedgerBooks) -> None:
    key = await bench.make_key(15_000)
    entry = await deliver(bench, await bench.admit(key, "req_1", 5_000))
    script = load_script("refund")
    names = ("ledger", "refunds", "team", "usage", f"key:{key.key_id}", f"usage:{key.key_id}")
    keys, arguments = NOBODY.asks(
        *(tuple(f"lm:{{acme}}:{name}" for name in names), ("refund_1", entry, '"x"', key.key_id)),
        team="acme",
        action="ledger.refund",
        target=f"acme_{entry}",
    )
    first = await bench.runner.run(script, keys, arguments)
    assert await bench.runner.run(script, keys, arguments) == first
    assert (await bench.record(key)).quota.posted == 0
    await check(bench, books, key)


async def test_what_cannot_be_refunded(bench: Bench, books: LedgerBooks) -> None:
    key = await bench.make_key(15_000)
    empty = await deliver(bench, await bench.admit(key, "req_1", 5_000), images=0)
    _record, grant = await bench.keys.grant(key.key_id, quota_units=5, reason="x")
    charged = await deliver(bench, await bench.admit(key, "req_2", 5_000))
    refund = await books.refund("acme", charged, reason="x")
    for entry in (empty, grant.removeprefix("acme_"), refund.removeprefix("acme_")):
        with pytest.raises(InvalidRequest, match="charged nothing"):
            await books.refund("acme", entry, reason="x")
    with pytest.raises(NotFound, match="There is no ledger entry 'acme_1-1'"):
        await books.refund("acme", "1-1", reason="x")
    with pytest.raises(NotFound):
        await books.refund("nobody", charged, reason="x")
    await check(bench, books, key)


async def stream(bench: Bench) -> list[tuple[bytes, dict[Any, Any]]]:
    """The ledger as it stands in the store."""
    entries: Any = await bench.redis.xrange("lm:{acme}:ledger")
    return list(entries)


async def age(bench: Bench, days: int) -> None:
    """Make every ledger entry older: the store has no other clock."""
    entries = await stream(bench)
    await bench.redis.delete("lm:{acme}:ledger")
    for stream_id, fields in entries:
        milliseconds, _, sequence = stream_id.decode().partition("-")
        await bench.redis.xadd("lm:{acme}:ledger", fields, id=f"{int(milliseconds) - days * 86_400_000}-{sequence}")


async def test_trimmed_entries_go_into_the_checkpoint(
    bench: Bench, books: LedgerBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_books, "TRIM_BATCH", 3)
    key = await bench.make_key(100_000)
    for number in range(7):
        await deliver(bench, await bench.admit(key, f"req_{number}", 5_000), images=number % 3)
    await bench.keys.grant(key.key_id, quota_units=-7, reason="x")
    await age(bench, 2)
    old = (await stream(bench))[1][0].decode()
    await books.refund("acme", old, reason="x")
    await bench.admit(key, "req_held", 5_000)
    await deliver(bench, await bench.admit(key, "req_new", 5_000))
    assert (await books.trim("acme", keep_ms=3 * 86_400_000)).entries == 0
    assert (await books.trim("acme", keep_ms=86_400_000)).entries == 8
    assert (await books.trim("acme", keep_ms=86_400_000)).entries == 0
    assert await bench.redis.xlen("lm:{acme}:ledger") == 2
    assert await bench.redis.hget("lm:{acme}:checkpoint", "entries") == b"8"
    assert await bench.redis.hlen("lm:{acme}:refunds") == 0
    with pytest.raises(NotFound):
        await books.refund("acme", old, reason="x")
    await check(bench, books, key)


async def test_retention_trims_every_team_and_only_where_it_is_asked_to(
    bench: Bench, books: LedgerBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_retention, "PAUSE_S", 0.02)
    statements = Statements(bench.runner, bench.pool, bench.store)
    key = await bench.make_key(None)
    await deliver(bench, await bench.admit(key, "req_1", 5_000))
    await age(bench, 5)
    for_ever, a_while = LedgerRetention(books, statements, days=0), LedgerRetention(books, statements, days=4)
    for_ever.start()
    await for_ever.stop()
    assert await bench.redis.xlen("lm:{acme}:ledger") == 1
    a_while.start()

    async def is_empty() -> bool:
        return not await bench.redis.xlen("lm:{acme}:ledger")

    await eventually(is_empty)
    await a_while.stop()
    await check(bench, books, key)


async def test_only_what_every_shipper_has_shipped_is_trimmed(bench: Bench, books: LedgerBooks) -> None:
    key, day = await bench.make_key(100_000), 86_400_000
    shipped = ShippedLedger(bench.runner, bench.pool, bench.store, books)
    for number in range(6):
        await deliver(bench, await bench.admit(key, f"req_{number}", 5_000), images=number % 3)
    await age(bench, 2)
    places = [stream_id.decode() for stream_id, _fields in await stream(bench)]
    await deliver(bench, await bench.admit(key, "req_new", 5_000))
    both = ("books", "archive")
    assert await books.trim("acme", keep_ms=day, shippers=both) == Trimmed(0, waits=True)
    await shipped.report("books", {"acme": places[3]}, None)
    assert await books.trim("acme", keep_ms=day, shippers=both) == Trimmed(0, waits=True)
    await shipped.report("archive", {"acme": places[1]}, None)
    # Of two that have shipped entries of one millisecond, the one that is behind counts.
    assert await books.trim("acme", keep_ms=day, shippers=both) == Trimmed(2, waits=True)
    await check(bench, books, key)
    await shipped.report("archive", {"acme": places[5]}, None)
    assert await books.trim("acme", keep_ms=day, shippers=both) == Trimmed(2, waits=True)
    assert await books.trim("acme", keep_ms=3 * day, shippers=both) == Trimmed(0, waits=False)
    # What is younger stays, however far it has been shipped.
    await shipped.report("books", {"acme": f"{int(places[5].partition('-')[0]) + 3 * day}-0"}, None)
    assert await books.trim("acme", keep_ms=day, shippers=both) == Trimmed(2, waits=False)
    assert await bench.redis.xlen("lm:{acme}:ledger") == 1
    await check(bench, books, key)


async def test_retention_tells_what_waits_to_be_shipped(
    bench: Bench, books: LedgerBooks, caplog: pytest.LogCaptureFixture
) -> None:
    key = await bench.make_key(None)
    await deliver(bench, await bench.admit(key, "req_1", 5_000))
    await age(bench, 5)
    statements = Statements(bench.runner, bench.pool, bench.store)
    retention = LedgerRetention(books, statements, days=4, shippers=("books", "archive"))
    retention.start()

    async def is_told() -> bool:
        return "1 teams have entries older than 4 days that have not been shipped by books and archive" in caplog.text

    await eventually(is_told)
    await retention.stop()
    assert await bench.redis.xlen("lm:{acme}:ledger") == 1


async def test_a_part_of_the_teams_that_cannot_be_read_holds_no_other_up(
    bench: Bench, books: LedgerBooks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = await bench.make_key(None)
    await deliver(bench, await bench.admit(key, "req_1", 5_000))
    await bench.redis.set("lm:{x}:no-index", "1")
    monkeypatch.setattr(books._index, "parts", ["lm:{x}:no-index", *books.team_parts])
    # Entries of the last day are old as well.
    retention = LedgerRetention(books, Statements(bench.runner, bench.pool, bench.store), days=-1)
    retention.start()

    async def is_empty() -> bool:
        return not await bench.redis.xlen("lm:{acme}:ledger")

    await eventually(is_empty)
    await retention.stop()
    assert "some ledgers could not be trimmed" in caplog.text


async def test_books_are_read_in_pages(bench: Bench, books: LedgerBooks) -> None:
    keys = sorted([(await bench.make_key(None)).key_id for _ in range(5)])
    first = await books.read("acme", after="", limit=3)
    second = await books.read("acme", after=first.keys[-1].id, limit=3)
    assert [key.id for key in (*first.keys, *second.keys)] == ["", *keys]
    assert (first.next_cursor, second.next_cursor) == (keys[2], None)
    assert await books.teams(limit=1) == Page(["acme"], None)
    assert (first.as_of, first.trimmed) == ("0-0", "0-0")


async def test_a_page_of_books_ends_where_its_keys_have_very_many_figures(
    bench: Bench, books: LedgerBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_books, "FIELDS_A_PAGE", 10)
    keys = sorted([(await bench.make_key(None)).key_id for _ in range(4)])
    for key_id in keys:
        await bench.redis.hset(f"lm:{{acme}}:usage:{key_id}", mapping={f"{day}:units:m": 1 for day in range(6)})
    found, cursor = [], ""
    while True:
        page = await books.read("acme", after=cursor, limit=50)
        found.append([key.id for key in page.keys])
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert found == [["", *keys[:2]], keys[2:]]


async def test_more_leases_than_are_looked_at_are_not_compared(
    bench: Bench, books: LedgerBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await bench.make_key(None)
    await asyncio.gather(*(bench.admit(key, f"req_{number}", 5_000) for number in range(4)))
    monkeypatch.setattr(ledger_books, "LEASES_COMPARED", 4)
    assert [each.held_reservations for each in (await books.read("acme", after="", limit=50)).keys] == [4, 4]
    await check(bench, books, key)
    monkeypatch.setattr(ledger_books, "LEASES_COMPARED", 3)
    page = await books.read("acme", after="", limit=50)
    assert [(each.held_reservations, each.held_units) for each in page.keys] == [(None, {}), (None, {})]
    assert page.stray_leases == []


async def test_leases_that_have_run_out_are_taken_back_before_the_books_are_read(
    bench: Bench, books: LedgerBooks
) -> None:
    key = await bench.make_key(None)
    await bench.admit(key, "req_1", 5_000)
    await bench.redis.zadd("lm:{acme}:leases", {"req_1": 1})
    page = await books.read("acme", after="", limit=50)
    assert [each.held_reservations for each in page.keys] == [0, 0]
    await check(bench, books, key)


async def test_books_are_read_while_leases_and_keys_come_and_go(bench: Bench, books: LedgerBooks) -> None:
    made = [await bench.make_key(10_000_000) for _ in range(3)]

    async def come_and_go(number: int) -> None:
        for at in range(40):
            await deliver(bench, await bench.admit(made[number % 3], f"req_{number}_{at}", 5_000))

    async def look() -> int:
        counted = 0
        for _ in range(40):
            page = await books.read("acme", after="", limit=50)
            team, *keys = page.keys
            if team.held_reservations is not None:
                counted += 1
                assert team.held_reservations == int(team.record["held"])
                assert sum(team.held_units.values()) == int(team.record["reserved"])
                assert sum(int(key.record["held"]) for key in keys if "held" in key.record) == team.held_reservations
        return counted

    coming = [asyncio.create_task(come_and_go(number)) for number in range(8)]
    making = asyncio.create_task(bench.make_key())
    assert await look() > 0
    await asyncio.gather(making, *coming)
    assert len((await books.read("acme", after="", limit=50)).keys) == 5


async def test_books_of_a_team_whose_leases_never_stay_are_read_without_them(
    bench: Bench, books: LedgerBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, run = await bench.make_key(10_000_000), bench.runner.run
    held: list[Reservation] = []

    async def admit_before(script: Any, keys: Any, arguments: Any) -> Any:
        if script.name == "read_books":
            held.append(await bench.admit(key, f"req_{len(held)}", 5_000))
        return await run(script, keys, arguments)

    monkeypatch.setattr(bench.runner, "run", admit_before)
    page = await books.read("acme", after="", limit=50)
    assert [one.held_reservations for one in page.keys] == [None, None]
    assert int(page.keys[0].record["held"]) == len(held) == ledger_books.TRIES_WITH_LEASES + 1


async def test_trimming_goes_on_over_the_keys_of_each_part(
    bench: Bench, books: LedgerBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_books, "TRIM_BATCH", 3)
    keys = [await bench.make_key(15_000) for _ in range(4)]
    for number in range(12):
        await deliver(bench, await bench.admit(keys[number % 4], f"req_{number}", 5_000))
    await bench.teams.update("acme", {"quota_units": 1_000_000})
    await bench.teams.grant("acme", quota_units=5, reason="x")
    assert (await books.trim("acme", keep_ms=-60_000)).entries == 13
    page = await books.read("acme", after="", limit=50)
    assert [one.checkpoint.get("posted") for one in page.keys] == ["60000"] + ["15000"] * 4
    assert page.keys[0].checkpoint["granted"] == "5"
