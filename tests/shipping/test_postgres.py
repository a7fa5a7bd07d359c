from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest

from proxy.shipping import postgres as postgres_sink
from proxy.shipping.batch import Batch
from proxy.shipping.errors import PlaceMoved, ShippingError, Unavailable
from proxy.shipping.postgres import LATEST_VERSION, PostgreSql, password_in
from proxy.shipping.source import Head
from tests.end_to_end.test_command_line import lightmeter, run
from tests.shipping.books import Ledgers
from tests.support.gateways import key_id
from tests.support.postgres import Postgres
from tests.support.processes import ROOT, wait_for

NOVEMBER = 1_794_000_000_000
YEAR_MS = 31_536_000_000


def head(team: str) -> Head:
    return Head(team, None, None, None, 0)


def batch(*ids: str, after: str | None = None, **facts: Any) -> Batch:
    made = Batch()
    for each in ids:
        team, _, place = each.partition("_")
        at_ms = int(place.partition("-")[0])
        at = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        about = {"kind": "request", "key": f"{team}_k", "charged": 1, "admitted_ms": at_ms, **facts}
        made.add({"id": each, "team": team, "at": at, **about}, after)
        after = each
    return made


@asynccontextmanager
async def sink_of(postgres: Postgres, schema: str = "lightmeter") -> AsyncIterator[PostgreSql]:
    sink = PostgreSql(postgres.url, schema)
    try:
        yield sink
    finally:
        await sink.close()


def count(postgres: Postgres, query: str = "select count(*) from entries") -> int:
    return int(postgres.rows(query)[0][0])


def has_rows(postgres: Postgres, wanted: int) -> bool:
    return postgres.rows("select to_regclass('entries')") != [(None,)] and count(postgres) >= wanted


@pytest.mark.parametrize(
    "password", ["s%ecret", "sec%zzret", "sec@ret", "sec/ret", "se@c/ret", "sec#ret/x", "secret'@h:x/@"]
)
@pytest.mark.parametrize("address", ["postgresql://u:{}@127.0.0.1:1/db", "postgres://u:{}@a,b/db?sslmode=require"])
def test_a_password_that_should_have_been_escaped_is_a_mistake_that_is_told_without_it(
    address: str, password: str
) -> None:
    with pytest.raises(ShippingError) as told:
        password_in(address.format(password))
    assert "are written %25" in str(told.value)
    assert "ret" not in str(told.value)
    assert password_in(address.format(quote(password, safe=""))) == password


@pytest.mark.parametrize(
    ("address", "password"),
    [
        ("postgresql://u@h/db", ""),
        ("postgresql://u:sec?ret@h/db", "sec?ret"),
        ("postgresql:///db?host=/run/pg&user=u", ""),
        ("postgresql://h/db?password=secret", "secret"),
        ("postgresql://u:sec:ret@[::1]:5432/db?options=-c%20a%3Db@c", "sec:ret"),
    ],
)
def test_addresses_as_they_are_written(address: str, password: str) -> None:
    assert password_in(address) == password


def test_the_command_tells_no_password() -> None:
    token = {"LIGHTMETER_ADMIN_TOKEN": "the-token-of-the-tests"}
    address = "postgresql://u:pass%zzword@127.0.0.1:1/db"
    told = run("ledger", "ship", "--to", address, "--once", environment=token)
    assert told.returncode == 1
    assert "no address of PostgreSQL" in told.stderr
    assert "word@" not in told.stdout + told.stderr


async def test_rows_and_places_come_together(postgres: Postgres) -> None:
    ids = [f"acme_{NOVEMBER}-{number}" for number in range(3)]
    async with sink_of(postgres) as sink:
        assert await sink.places([head("acme")]) == {}
        assert await sink.write(batch(*ids[:2]), None) == 0
        assert await sink.places([head("acme"), head("other")]) == {"acme": ids[1]}
        # Nobody knows whether a batch was committed: it is asked for again.
        assert await sink.write(batch(*ids[:2]), None) == 0
        with pytest.raises(PlaceMoved):
            await sink.write(batch(*ids), None)
        with pytest.raises(PlaceMoved):
            await sink.write(batch(f"acme_{NOVEMBER}-9", after=f"acme_{NOVEMBER}-8"), None)
        assert count(postgres) == 2
        # Somebody has taken the places away: every row is known again.
        postgres.rows("delete from places")
        assert await sink.write(batch(*ids), None) == 2
    assert count(postgres) == 3


async def test_each_month_has_a_table_that_is_there_before_it_is_needed(postgres: Postgres) -> None:
    async with sink_of(postgres) as sink:
        await sink.places([])
        today = datetime.now(UTC).date()
        months = [(today.year + (today.month - 1 + n) // 12, (today.month - 1 + n) % 12 + 1) for n in range(3)]
        tables = "select relid::regclass::text from pg_partition_tree('entries') where isleaf order by 1"
        assert postgres.rows(tables) == [(f"entries_{year}_{month:02}",) for year, month in months]
        # December ends with its last millisecond, and a clock that was years ahead has a table as well.
        old, new = f"acme_{1_767_225_599_999}-0", f"acme_{1_767_225_600_000}-0"
        ahead = f"acme_{NOVEMBER + 20 * YEAR_MS}-0"
        await sink.write(batch(old, new, ahead), None)
        where = "select tableoid::regclass::text, at at time zone 'UTC' from entries order by at"
        found = postgres.rows(where)
        assert [table for table, _at in found] == ["entries_2025_12", "entries_2026_01", "entries_2046_11"]
        assert found[0][1] == datetime(2025, 12, 31, 23, 59, 59, 999_000)


async def test_figures_and_texts_are_exact(postgres: Postgres) -> None:
    largest, rate = 2**53 - 1, Decimal("30000.123456789012345678901")
    ids = [f"acme_{NOVEMBER}-{number}" for number in range(3)]
    facts: dict[str, Any] = {
        "model": "a/b",
        "reason": "nothing \0 \\u0000 ☺ 'x",
        "usage": {"z\0": [0.1, 10**18], "cost": "0.10"},
    }
    async with sink_of(postgres) as sink:
        await sink.write(batch(*ids, charged=largest, overage=largest, images=3, **facts), rate)
        await sink.write(batch(f"other_{NOVEMBER}-0", charged=1, model="a/b"), None)
    spend = "select requests, images, units, overage_units, refunded_units, usd from spend_by_team order by team"
    (first, other) = postgres.rows(spend)
    assert first[:5] == (3, 9, 3 * largest, 3 * largest, 0)
    assert abs(first[5] - Decimal(3 * largest) / rate) < Decimal("1e-6")
    assert other == (1, 0, 1, 0, 0, None)
    ((reason, kept),) = postgres.rows("select reason, facts from entries where entry = %s", ids[0])
    assert reason == "nothing \N{REPLACEMENT CHARACTER} \\u0000 ☺ 'x"
    assert kept["usage"] == {"z\N{REPLACEMENT CHARACTER}": [0.1, 10**18], "cost": "0.10"}


async def test_a_schema_of_a_later_version_is_left_alone(postgres: Postgres) -> None:
    async with sink_of(postgres) as sink:
        await sink.places([])
    postgres.rows("insert into schema_version (version) values (99)")
    async with sink_of(postgres) as sink:
        with pytest.raises(ShippingError, match=f"version 99, and this Lightmeter knows {LATEST_VERSION}"):
            await sink.places([])


async def test_a_schema_of_an_earlier_version_is_brought_up_with_its_rows(postgres: Postgres) -> None:
    ids = [f"acme_{NOVEMBER}-{number}" for number in range(3)]
    async with sink_of(postgres) as sink:
        await sink.write(batch(ids[0], model="m", user="ann", tags={"env": "prod", "project": "x"}), Decimal(2))
    # As version 1 has left it.
    for command in ("drop view spend_by_user, spend_by_tag", "delete from schema_version where version > 1"):
        postgres.rows(command)
    async with sink_of(postgres) as sink:
        refund = {"model": "m", "kind": "refund", "user": "ann", "tags": {"env": "prod"}, "charged": -1}
        await sink.write(batch(ids[1], after=ids[0], **refund), Decimal(2))
        await sink.write(batch(ids[2], after=ids[1], model="m"), Decimal(2))
    assert postgres.rows("select max(version), count(*) from schema_version") == [(LATEST_VERSION, LATEST_VERSION)]
    whose = "select end_user, requests, units, refunded_units, usd from spend_by_user"
    assert postgres.rows(whose) == [("ann", 1, 0, 1, 0)]
    tags = "select tag, value, requests, units, usd from spend_by_tag order by tag"
    assert postgres.rows(tags) == [("env", "prod", 1, 0, 0), ("project", "x", 1, 1, Decimal("0.5"))]


async def test_a_user_without_rights_beyond_the_schema_is_enough(postgres: Postgres) -> None:
    for command in ("drop role if exists shipper", "create role shipper login"):
        postgres.rows(command)
    url = postgres.url.replace("lightmeter@", "shipper@")
    sink = PostgreSql(url, "lightmeter")
    with pytest.raises(ShippingError, match="permission denied for database"):
        await sink.places([])
    postgres.rows("create schema lightmeter authorization shipper")
    assert await sink.write(batch(f"acme_{NOVEMBER}-0"), None) == 0
    await sink.close()
    assert count(postgres) == 1
    postgres.rows("drop schema lightmeter cascade")
    postgres.rows("drop role shipper")


async def test_it_waits_for_nobody_for_ever_and_commits_are_synced(postgres: Postgres) -> None:
    postgres.rows("alter role lightmeter set synchronous_commit = off")
    try:
        async with sink_of(postgres) as sink, sink._transaction() as connection:
            found = await (await connection.execute("show synchronous_commit")).fetchone()
            assert found == ("on",)
    finally:
        postgres.rows("alter role lightmeter reset synchronous_commit")
    nobody = PostgreSql("postgresql://x@127.0.0.1:1/x", "lightmeter")
    with pytest.raises(Unavailable, match="PostgreSQL is away"):
        await nobody.places([])


async def test_shippers_at_once_ship_each_entry_once(postgres: Postgres) -> None:
    ids = [f"acme_{NOVEMBER}-{number}" for number in range(200)]

    async def ship(seed: int) -> int:
        chance, done = random.Random(seed), 0  # noqa: S311 - no secret
        async with sink_of(postgres) as sink:
            while True:
                place = (await sink.places([head("acme")])).get("acme")
                begin = 0 if place is None else ids.index(place) + 1
                if begin == len(ids):
                    return done
                part = ids[begin : begin + chance.randrange(1, 20)]
                try:
                    assert await sink.write(batch(*part, after=place), None) == 0
                    done += len(part)
                except PlaceMoved:
                    await asyncio.sleep(0)

    shares = await asyncio.gather(*(ship(seed) for seed in range(3)))
    assert count(postgres) == 200
    assert sum(shares) >= 200


def test_the_views_equal_the_books(ledgers: Ledgers, postgres: Postgres) -> None:
    keys = [ledgers.spend(team) for team in ("acme", "other")] + [ledgers.spend("acme")]
    totals = ledgers.shipped(postgres.url, "--batch", "4")
    entries = ledgers.entries()
    assert (totals["entries"], totals["duplicates"], count(postgres)) == (len(entries), 0, len(entries))
    kept = {each["id"]: each for (each,) in postgres.rows("select facts from entries")}
    assert kept == entries
    verified = json.loads(lightmeter("ledger", "verify", "--json", environment=ledgers.environment))
    assert (verified["ok"], verified["entries"]) == (True, count(postgres))
    day = "select day::text, images, units from spend_by_day"
    by_day: Counter[str] = Counter()
    for account, where in [
        *((f"teams/{team}", f"team = '{team}'") for team in ("acme", "other")),
        *((f"keys/{key_id(key)}", f"key = '{key_id(key)}'") for key in keys),
    ]:
        usage = ledgers.gateway.admin("GET", f"/admin/v1/{account}/usage").json
        whole = "sum(images), sum(units), sum(overage_units), round(sum(usd), 6)"
        ((images, units, overage, usd),) = postgres.rows(f"select {whole} from spend where {where}")  # noqa: S608
        posted = usage["limits"]["quota_units"]
        assert (images, units, overage) == (usage["images"], posted["posted"], usage["overage_units"])
        assert usd == Decimal(posted["posted_usd"])
        models = postgres.rows(f"select model, sum(images), sum(units) from spend where {where} group by model")  # noqa: S608
        assert models == [(name, one["images"], one["quota_units"]) for name, one in usage["by_model"].items()]
        if account.startswith("teams/"):
            for name, one in usage["by_day"].items():
                by_day[name] += one["quota_units"]
    assert {name: units for name, _images, units in postgres.rows(day)} == by_day
    assert sum(units for _team, units in postgres.rows("select team, sum(units) from grants group by team")) == 3 * 72
    assert count(postgres, "select sum(refunded_units) from spend_by_model") == -sum(
        entry["charged"] for entry in entries.values() if entry["kind"] == "refund"
    )
    assert postgres.rows("select * from requests_twice") == []
    for query in re.findall(r"```sql\n(.*?)```", (ROOT / "deploy/README.md").read_text(), re.DOTALL):
        assert postgres.rows(query) is not None
    assert ledgers.shipped(postgres.url)["entries"] == 0
    heads = ledgers.gateway.admin("GET", "/admin/v1/ledger/heads?shipper=postgresql").json["data"]
    assert [each["shipped"] for each in heads] == [each["last"] for each in heads]


@pytest.mark.slow
def test_killed_in_the_middle_of_batches(ledgers: Ledgers, postgres: Postgres) -> None:
    chance = random.Random(17)  # noqa: S311 - no secret
    for team in ("acme", "other"):
        ledgers.fill(team, 600)
    for victim in ("shipper", "postgres", "shipper", "postgres"):
        shipper = ledgers.shipper(postgres.url, "--batch", "20")
        before = count(postgres) if has_rows(postgres, 0) else 0
        wait_for(partial(has_rows, postgres, before + chance.randrange(1, 200)), "rows")
        if victim == "postgres":
            postgres.kill()
            postgres.start()
            now = count(postgres)
            wait_for(partial(has_rows, postgres, min(now + 1, 1_200)), "rows after PostgreSQL came back")
        assert shipper.process.poll() is None, shipper.output
        shipper.process.kill()
        shipper.process.wait()
    totals = ledgers.shipped(postgres.url)
    assert totals["duplicates"] == 0
    assert {each["id"]: each for (each,) in postgres.rows("select facts from entries")} == ledgers.entries()
    assert count(postgres) == 1_200
    assert postgres.rows("select sum(units), sum(images), sum(requests) from spend") == [(1_200 * 5_000, 1_200, 1_200)]
    assert postgres.rows("select * from requests_twice") == []


@pytest.mark.slow
async def test_a_server_that_stands_still_is_given_up_and_used_again(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_sink, "TRANSACTION_TIMEOUT_S", 0.5)
    first, second = f"acme_{NOVEMBER}-0", f"acme_{NOVEMBER}-1"
    async with sink_of(postgres) as sink:
        await sink.write(batch(first), None)
        with postgres.standing_still():
            began = time.monotonic()
            with pytest.raises(Unavailable, match="did not answer"):
                await sink.write(batch(second, after=first), None)
            assert time.monotonic() - began < 15
        monkeypatch.undo()
        assert await sink.write(batch(second, after=first), None) == 0
    assert count(postgres) == 2
