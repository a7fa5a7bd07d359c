"""Days that are long past are summed up, in the usage of keys and teams and in checkpoints."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from proxy.domain.billing.books import Books
from proxy.domain.billing.settlement import Delivery, Served, settle
from proxy.domain.errors import StoreUnavailable
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.redis_store import usage_folding
from proxy.metering.redis_store.charges import FIRST_DAY, Charges
from proxy.metering.redis_store.facts import DAY_MS, texts, utc_day
from proxy.metering.redis_store.usage_folding import DAYS_KEPT, FIELDS_LEFT_ALONE, UsageFolding
from tests.metering.conftest import MODEL, Bench
from tests.support.polling import eventually

TEAM_USAGE = "lm:{acme}:usage"
MODELS = 3
LONG = DAYS_KEPT + 300


async def fill(bench: Bench, name: str, today: int, prefix: str = "") -> Counter[str]:
    """What ``MODELS`` models cost on each of the last ``LONG`` days; each by its heading."""
    fields: dict[Any, Any] = {
        f"{prefix}{utc_day((today - ago) * DAY_MS)}:{what}:m:{model}": ago + model
        for ago in range(LONG)
        for model in range(MODELS)
        for what in ("units", "images")
    }
    await bench.redis.hset(name, mapping=fields)
    return Counter({heading.removeprefix(prefix): value for heading, value in fields.items()})


async def read(bench: Bench, name: str) -> dict[str, str]:
    fields: dict[Any, Any] = await bench.redis.hgetall(name)
    return texts(fields.items())


async def today_of(bench: Bench) -> int:
    return int((await bench.redis.time())[0] // 86_400)


@pytest.mark.parametrize("prefix", ["", "usage:"])
async def test_old_days_become_one_and_nothing_is_lost(bench: Bench, prefix: str) -> None:
    today = await today_of(bench)
    before = await fill(bench, "lm:{acme}:some", today, prefix)
    first_day = utc_day((today - DAYS_KEPT) * DAY_MS)
    folding = UsageFolding(bench.runner)
    for _ in range(2):
        await folding.fold("lm:{acme}:some", prefix, first_day)
    after = await read(bench, "lm:{acme}:some")
    assert after.pop(FIRST_DAY, None) == (first_day if not prefix else None)
    books = Books(usage=before)
    books.fold_before(first_day)
    assert {f"{prefix}{heading}": str(value) for heading, value in books.usage.items()} == after
    assert len(after) == 2 * MODELS * (DAYS_KEPT + 2)
    # A gateway whose clock is behind does not bring a day back.
    if not prefix:
        await folding.fold("lm:{acme}:some", prefix, "2020-01-01")
        assert (await read(bench, "lm:{acme}:some"))[FIRST_DAY] == first_day


async def test_a_hash_of_few_fields_is_left_alone(bench: Bench) -> None:
    fields: dict[Any, Any] = {f"2001-01-01:units:{model}": 1 for model in range(FIELDS_LEFT_ALONE)}
    await bench.redis.hset("lm:{acme}:some", mapping=fields)
    await UsageFolding(bench.runner).fold("lm:{acme}:some", "", "2026-01-01")
    assert await bench.redis.hlen("lm:{acme}:some") == FIELDS_LEFT_ALONE


async def test_the_first_settlement_of_a_day_sums_up_and_the_books_stay_right(bench: Bench) -> None:
    key = await bench.make_key(None)
    today = await today_of(bench)
    usage = f"lm:{{acme}}:usage:{key.key_id}"
    for name in (usage, TEAM_USAGE, f"lm:{{acme}}:checkpoint:{key.key_id}", "lm:{acme}:checkpoint:"):
        before = await fill(bench, name, today, "usage:" if "checkpoint" in name else "")
    for number in range(3):
        reservation = await bench.admit(key, f"req_{number}", 5_000)
        delivery = Delivery(images=1, served=Served("sample", 200))
        delivery.end(complete=True)
        await bench.store.settle(settle(reservation, delivery))

    assert await bench.redis.hlen(TEAM_USAGE) > 2 * MODELS * (DAYS_KEPT + 200)
    bench.store.folding.start()

    async def are_all_folded() -> bool:
        names = (usage, TEAM_USAGE, f"lm:{{acme}}:checkpoint:{key.key_id}", "lm:{acme}:checkpoint:")
        return max([await bench.redis.hlen(name) for name in names]) <= 2 * MODELS * (DAYS_KEPT + 2) + 3

    await eventually(are_all_folded)
    await bench.store.folding.stop()
    for _record, by_model, by_day in (await bench.keys.usage(key.key_id), await bench.teams.usage("acme")):
        assert by_model[MODEL] == Charges(images=3, quota_units=15_000)
        total = sum(value for heading, value in before.items() if ":units:" in heading)
        assert sum(each.quota_units for each in by_day.values()) == total + 15_000
        assert len(by_day) == DAYS_KEPT + 2
        assert by_day["earlier"].quota_units > 0
    page = await LedgerBooks(bench.runner, bench.pool, bench.store).read("acme", after="", limit=50)
    for each in page.keys:
        found, checkpoint = Books(), Books()
        assert each.usage_from == utc_day((today - DAYS_KEPT) * DAY_MS)
        found.usage.update({name: int(value) for name, value in each.usage.items()})
        checkpoint.usage.update({name.removeprefix("usage:"): int(value) for name, value in each.checkpoint.items()})
        for books in (found, checkpoint):
            books.fold_before(each.usage_from)
        ledger = found.usage - checkpoint.usage
        assert set(ledger.values()) == {3, 15_000}


async def test_whose_turn_it_is_is_noted_once_a_day_and_within_a_bound(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    folding = UsageFolding(bench.runner)
    for _ in range(2):
        folding.settled("acme", "acme_1", 86_400_000)
        assert folding._waiting == [("acme", "acme_1"), ("acme", "")]
    await folding.fold_waiting()
    assert folding._waiting == []
    folding.settled("acme", "acme_1", 2 * 86_400_000)
    # One that was admitted before midnight is no new day.
    folding.settled("acme", "acme_1", 86_400_000)
    assert len(folding._waiting) == 2
    monkeypatch.setattr(usage_folding, "NAMES_LIMIT", 10)
    for number in range(100):
        folding.settled("acme", f"acme_{number}", 2 * 86_400_000)
    assert len(folding._waiting) == len(folding._noted) == 10


async def test_what_could_not_be_summed_up_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    folding = UsageFolding(bench.runner)
    folding.settled("acme", "acme_1", 86_400_000)

    async def fail(*_arguments: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(bench.runner, "run", fail)
    with pytest.raises(StoreUnavailable):
        await folding.fold_waiting()
    assert len(folding._waiting) == 2
    monkeypatch.undo()
    await folding.fold_waiting()
    assert folding._waiting == []
