from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy.shipping.batch import Batch
from proxy.shipping.errors import PlaceMoved, ShippingError
from proxy.shipping.jsonl import JsonLines
from proxy.shipping.source import Head
from tests.shipping.books import Ledgers
from tests.support.processes import ROOT, wait_for

OCTOBER = 1_791_000_000_000
NOVEMBER = 1_794_000_000_000


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def batch(*ids: str, after: str | None = None) -> Batch:
    made = Batch()
    for each in ids:
        team, _, place = each.partition("_")
        at = datetime.fromtimestamp(int(place.partition("-")[0]) / 1000, UTC).isoformat()
        made.add({"id": each, "team": team, "at": at}, after)
        after = each
    return made


def head(team: str) -> Head:
    return Head(team, None, None, None, 0)


async def test_a_month_or_a_day_is_a_file(tmp_path: Path) -> None:
    ids = (f"acme_{OCTOBER}-0", f"acme_{NOVEMBER}-0", f"acme_{NOVEMBER}-1")
    for by, names in (("month", ["2026-10", "2026-11"]), ("day", ["2026-10-03", "2026-11-06"])):
        sink = JsonLines(tmp_path / by, by)  # type: ignore[arg-type]
        assert await sink.write(batch(*ids), None) == 0
        assert await sink.places([head("acme"), head("other")]) == {"acme": ids[-1]}
        await sink.close()
        assert [each.name for each in sorted((tmp_path / by).glob("*.jsonl"))] == [
            f"ledger-{each}.jsonl" for each in names
        ]
        assert [each["id"] for each in lines(tmp_path / by)] == list(ids)


async def test_what_a_crash_has_left_is_cut_off(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path, "month")
    await sink.write(batch(f"acme_{NOVEMBER}-0"), None)
    await sink.close()
    file = tmp_path / "ledger-2026-11.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"id":"acme_1794000000000-1"}\n{"id":"acm')
    sink = JsonLines(tmp_path, "month")
    assert file.read_bytes() == whole
    # The same within one life: a disk that was full has taken a part.
    file.write_bytes(whole + b'{"id":"ac')
    await sink.write(batch(f"acme_{NOVEMBER}-1", after=f"acme_{NOVEMBER}-0"), None)
    assert [each["id"] for each in lines(tmp_path)] == [f"acme_{NOVEMBER}-0", f"acme_{NOVEMBER}-1"]
    await sink.close()


async def test_a_file_that_was_moved_away_begins_anew_and_one_that_was_cut_is_told(tmp_path: Path) -> None:
    file, first = tmp_path / "ledger-2026-11.jsonl", f"acme_{NOVEMBER}-0"
    sink = JsonLines(tmp_path, "month")
    await sink.write(batch(first), None)
    file.rename(tmp_path / "archived")
    await sink.write(batch(f"acme_{NOVEMBER}-1", after=first), None)
    assert [each["id"] for each in lines(tmp_path)] == [f"acme_{NOVEMBER}-1"]
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    with pytest.raises(ShippingError, match="put the whole file back"):
        await sink.write(batch(f"acme_{NOVEMBER}-2", after=f"acme_{NOVEMBER}-1"), None)
    await sink.close()
    with pytest.raises(ShippingError, match="put the whole file back"):
        JsonLines(tmp_path, "month")
    file.unlink()
    sink = JsonLines(tmp_path, "month")
    await sink.write(batch(f"acme_{NOVEMBER}-2", after=f"acme_{NOVEMBER}-1"), None)
    assert [each["id"] for each in lines(tmp_path)] == [f"acme_{NOVEMBER}-2"]
    await sink.close()


async def test_no_line_goes_where_another_writes(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "ours", "month")
    with pytest.raises(ShippingError, match="another shipper writes"):
        JsonLines(tmp_path / "ours", "month")
    (tmp_path / "ours" / "ledger-2026-11.jsonl").write_text("somebody else's\n")
    with pytest.raises(ShippingError, match="not of this shipper"):
        await sink.write(batch(f"acme_{NOVEMBER}-0"), None)
    with pytest.raises(PlaceMoved):
        await sink.write(batch(f"acme_{OCTOBER}-1", after=f"acme_{OCTOBER}-0"), None)
    await sink.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(ShippingError, match="cannot be used"):
        JsonLines(tmp_path / "file", "month")


def test_every_entry_is_a_line_once(ledgers: Ledgers) -> None:
    folder = ledgers.folder / "lines"
    for team in ("acme", "other"):
        ledgers.spend(team)
    ledgers.gateway.admin("POST", "/admin/v1/teams", body={"id": "idle"})
    first = ledgers.entries()
    totals = ledgers.shipped(f"jsonl:{folder}", "--batch", "3")
    assert (totals["entries"], totals["duplicates"], totals["batches"] > 3) == (len(first), 0, True)
    assert {entry["id"]: entry for entry in lines(folder)} == first
    assert {entry["kind"] for entry in first.values()} == {"request", "grant", "refund"}
    ledgers.spend("acme")
    assert ledgers.shipped(f"jsonl:{folder}")["entries"] == len(ledgers.entries()) - len(first)
    assert ledgers.shipped(f"jsonl:{folder}")["entries"] == 0
    found = lines(folder)
    assert len(found) == len(ledgers.entries())
    assert {entry["id"]: entry for entry in found} == ledgers.entries()
    # Each team's lines are in the order of its ledger.
    for team in ("acme", "other"):
        ids = [entry["id"] for entry in found if entry["team"] == team]
        assert ids == [each for each in ledgers.entries() if each.startswith(f"{team}_")]


def test_entries_that_are_too_young_wait(ledgers: Ledgers) -> None:
    folder = ledgers.folder / "lines"
    ledgers.fill("acme", 1)
    shipper = ledgers.shipper(f"jsonl:{folder}", "--min-age", "3600")
    try:
        shipper.wait_for_output("walks")
        assert lines(folder) == []
        assert ledgers.gateway.admin("GET", "/admin/v1/ledger/heads?shipper=jsonl").json["data"][0]["shipped"] is None
    finally:
        assert shipper.stop() == 0, shipper.output


def test_what_is_lost_or_refused_is_told(ledgers: Ledgers) -> None:
    target = f"jsonl:{ledgers.folder / 'lines'}"
    for team in ("acme", "other"):
        ledgers.fill(team, 5)
    ids = list(ledgers.entries())
    with redis.Redis.from_url(ledgers.store_url) as store:
        # As an hour of trimming leaves it.
        last = ids[2].rpartition("_")[2]
        store.hset("lm:{acme}:checkpoint", "last", last)
        store.xtrim("lm:{acme}:ledger", minid=ids[3].rpartition("_")[2], approximate=False)
        done = ledgers.ship(target)
        assert json.loads(done.stdout)["entries"] == 7
        assert f"entries of acme up to {ids[2]} were trimmed before they were shipped" in done.stderr
        # As a store that comes back without its last second.
        store.xdel("lm:{other}:ledger", ids[-1].rpartition("_")[2])
        assert (
            f"the ledger of other ends with {ids[-2]}, and the destination has {ids[-1]}" in ledgers.ship(target).stderr
        )

    # A destination that is new takes back what the gateway may trim.
    heads = partial(ledgers.gateway.admin, "GET", "/admin/v1/ledger/heads?shipper=jsonl")
    assert [head["shipped"] for head in heads().json["data"]] == [ids[4], ids[-1]]
    ledgers.shipped(f"jsonl:{ledgers.folder / 'new'}", "--name", "jsonl")
    assert [head["shipped"] for head in heads().json["data"]] == [ids[4], ids[-2]]

    refused = ledgers.ship(target, LIGHTMETER_ADMIN_TOKEN="wrong-token-of-the-tests")
    assert (refused.returncode, "the gateway refuses GET" in refused.stderr) == (1, True)
    away = ledgers.ship(target, "--patience", "0.1", LIGHTMETER_ADMIN_URL="http://127.0.0.1:1")
    assert (away.returncode, "no gateway answers at http://127.0.0.1:1" in away.stderr) == (1, True)
    # Where the extra has not been installed, its import fails like this.
    (ledgers.folder / "psycopg.py").write_text("raise ImportError")
    lacking = ledgers.ship("postgresql://x/y", PYTHONPATH=f"{ledgers.folder}:{ROOT}")
    assert (lacking.returncode, "PostgreSQL's driver is not here: " in lacking.stderr) == (1, True)
    unknown = ledgers.ship("mysql://x")
    assert (unknown.returncode, "--to should be postgresql://" in unknown.stderr) == (2, True)


@pytest.mark.slow
def test_a_shipper_that_is_killed_in_the_middle_loses_and_doubles_nothing(ledgers: Ledgers) -> None:
    folder, chance = ledgers.folder / "lines", random.Random(17)  # noqa: S311 - no secret
    for team in ("acme", "other"):
        ledgers.fill(team, 600)
    for _ in range(4):
        shipper = ledgers.shipper(f"jsonl:{folder}", "--batch", "10")
        wait_for(partial(has_lines, folder, count(folder) + chance.randrange(1, 200)), "lines")
        assert shipper.process.poll() is None, shipper.output
        shipper.process.kill()
        shipper.process.wait()
    assert count(folder) < 1_200
    ledgers.shipped(f"jsonl:{folder}")
    found = lines(folder)
    assert len(found) == 1_200
    assert {entry["id"]: entry for entry in found} == ledgers.entries()


def count(folder: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("*.jsonl"))


def has_lines(folder: Path, wanted: int) -> bool:
    return count(folder) >= wanted
