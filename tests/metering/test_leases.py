from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import orjson
import pytest

from proxy.domain.api_key import Credential
from proxy.domain.billing.settlement import Delivery, Reservation, Served, Settlement, settle
from proxy.domain.errors import InsufficientQuota, InvalidApiKey, StoreUnavailable
from proxy.metering.leases import BATCH, Leases
from proxy.metering.ledger.pages import LedgerFilter
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.metering.store import Details, Store
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench, quote
from tests.support.odd_store import OddStore
from tests.support.polling import eventually

LEASES = "lm:{acme}:leases"


async def run_out(bench: Bench) -> None:
    """Let every lease of the team run out, as it would where nobody renews it."""
    for reservation_id in await bench.redis.zrange(LEASES, 0, -1):
        assert isinstance(reservation_id, bytes)
        await bench.redis.zadd(LEASES, {reservation_id: 1})


async def entries(bench: Bench, key: Credential) -> list[dict[str, Any]]:
    page = await bench.ledger.list_entries(LedgerFilter(key_id=key.key_id), cursor=None, limit=100)
    return [{"kind": entry.kind, "id": entry.id, **entry.facts} for entry in page.items]


def settlement(reservation: Reservation, images: int) -> Settlement:
    delivery = Delivery(images=images, served=Served("sample", 200))
    delivery.end(complete=True)
    return settle(reservation, delivery)


async def test_what_a_dead_gateway_held_is_free_for_the_next_admission(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    dead = await bench.admit(key, "req_dead", 5_000, images=2)
    with pytest.raises(InsufficientQuota):
        await bench.admit(key, "req_early", 5_000)
    await run_out(bench)
    alive = await bench.admit(key, "req_alive", 5_000)
    assert alive.remaining_units == 5_000
    assert bench.metrics.registry.get_sample_value("lightmeter_expired_leases_total") == 1
    (entry,) = await entries(bench, key)
    assert entry["kind"] == "request"
    assert (entry["request"], entry["outcome"], entry["charged"], entry["images"]) == ("req_dead", "expired", 0, 0)
    assert (entry["model"], entry["endpoint"], entry["requested_images"]) == (MODEL, ENDPOINT, 2)
    assert (entry["reserved"], entry["admitted_ms"]) == (10_000, dead.admitted_ms)
    await bench.store.settle(settlement(alive, 1))
    await bench.check_books(key)


async def test_a_look_at_what_is_used_is_enough(bench: Bench) -> None:
    looks: list[Callable[[Credential], Awaitable[object]]] = [
        bench.store.read_own_key,
        lambda key: bench.keys.get(key.key_id),
        lambda key: bench.keys.usage(key.key_id),
        lambda key: bench.keys.page("acme", cursor=None, limit=10),
        lambda key: bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=10),
    ]
    for number, look in enumerate(looks):
        key = await bench.make_key(10_000)
        await bench.admit(key, f"req_{number}", 5_000)
        await run_out(bench)
        await look(key)
        assert await bench.redis.zcard(LEASES) == 0
        counters = await bench.redis.hget(f"lm:{{acme}}:key:{key.key_id}", "counters")
        assert isinstance(counters, bytes)
        assert struct.unpack(">13q", counters)[0] == 0
        await bench.check_books(key)


async def test_an_admission_that_has_room_does_not_wait_for_what_ran_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await bench.make_key(20_000)
    await bench.admit(key, "req_dead", 5_000)
    await run_out(bench)
    reclaiming, go_on = bench.store._reclaiming, asyncio.Event()
    step = reclaiming._step

    async def wait(*arguments: Any) -> list[Any]:
        await go_on.wait()
        return await step(*arguments)

    monkeypatch.setattr(reclaiming, "_step", wait)
    alive = await bench.admit(key, "req_alive", 5_000)
    assert await bench.redis.zcard(LEASES) == 2
    go_on.set()
    await eventually(lambda: bench.metrics.registry.get_sample_value("lightmeter_expired_leases_total") == 1)
    await bench.store.settle(settlement(alive, 1))
    await bench.check_books(key)


async def test_another_model_stands_in_on_what_ran_out(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    await bench.admit(key, "req_dead", 5_000)
    await run_out(bench)
    alive = await bench.store.admit(
        "req_alive",
        key,
        endpoint=ENDPOINT,
        model=MODEL,
        quote=quote(5_000),
        details=Details(fallback_units={"dear/model": 10_000}),
    )
    assert (alive.quote.units, alive.fallbacks) == (10_000, ("dear/model",))


async def test_a_refused_request_takes_back_what_ran_out_and_nothing_else(bench: Bench) -> None:
    first, second = await bench.make_key(5_000), await bench.make_key(4_999)
    await bench.admit(first, "req_1", 5_000)
    await run_out(bench)
    with pytest.raises(InsufficientQuota):
        await bench.admit(second, "req_2", 5_000)
    assert [entry["outcome"] for entry in await entries(bench, first)] == ["expired"]
    assert await entries(bench, second) == []
    await bench.check_books(first)


async def test_an_expired_reservation_can_be_charged_whole(store_url: str) -> None:
    async with open_bench(store_url, charge_expired=True) as bench:
        key = await bench.make_key(20_000)
        await bench.admit(key, "req_1", 5_000, images=3)
        await run_out(bench)
        record, by_model, by_day = await bench.keys.usage(key.key_id)
        assert (record.quota.posted, record.quota.reserved, record.images) == (15_000, 0, 0)
        assert by_model[MODEL].quota_units == 15_000
        (now_s, _micros) = await bench.redis.time()
        (day,) = by_day
        assert abs(now_s - _start_of(day)) < 2 * 86_400
        await bench.check_books(key)


def _start_of(day: str) -> float:
    return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize("images", [0, 1, 2, 9])
@pytest.mark.parametrize("charge_expired", [False, True])
async def test_a_late_settlement_posts_once_and_says_so(store_url: str, images: int, charge_expired: bool) -> None:
    async with open_bench(store_url, charge_expired=charge_expired) as bench:
        key = await bench.make_key(20_000)
        reservation = await bench.admit(key, "req_1", 5_000, images=2)
        await run_out(bench)
        await bench.store.reclaim("acme")
        first = await bench.store.settle(settlement(reservation, images))
        assert await bench.store.settle(settlement(reservation, images)) == first
        expired, late = await entries(bench, key)
        assert (expired["kind"], expired["outcome"]) == ("request", "expired")
        assert (late["kind"], late["request"], late["corrects"]) == ("late", "req_1", expired["id"])
        assert late["outcome"] == ("delivered" if images else "empty")
        assert expired["charged"] + late["charged"] == images * 5_000
        record = await bench.record(key)
        assert record.quota.posted == images * 5_000
        # What no reservation covered any more is overage, so that the rest never passes the limit.
        assert record.overage_units == max(0, late["charged"])
        await bench.check_books(key)


ROUNDS = 15


async def test_expiry_and_settlement_at_once_charge_once(store_url: str) -> None:
    late, in_time = [("request", "expired"), ("late", "delivered")], [("request", "delivered")]
    async with open_bench(store_url) as bench, open_bench(store_url) as other:
        key = await bench.make_key(None)
        for number in range(ROUNDS):
            request_id = f"req_{number}"
            reservation = await bench.admit(key, request_id, 5_000)
            await run_out(bench)
            settling, reclaiming = bench.store.settle(settlement(reservation, 1)), other.store.reclaim("acme")
            # Two connections, so that either may be first.
            await asyncio.gather(*((settling, reclaiming) if number % 2 else (reclaiming, settling)))
            assert await bench.redis.zcard(LEASES) == 0
            assert (await bench.record(key)).quota.posted == (number + 1) * 5_000
            found = [entry for entry in await entries(bench, key) if entry["request"] == request_id]
            assert [(entry["kind"], entry["outcome"]) for entry in found] in (late, in_time)
        await bench.check_books(key)


async def test_a_lease_is_renewed_for_as_long_as_it_is_held(store_url: str) -> None:
    async with open_bench(store_url, lease_ms=300) as bench:
        key = await bench.make_key(10_000)
        async with bench.meter.admit(key, Observation("req_1", ENDPOINT, model=MODEL), MODEL, quote(5_000)) as delivery:
            # Three times as long as the lease, looked at all the time.
            began = (await bench.redis.time())[0]
            while (await bench.redis.time())[0] - began < 2:
                await bench.store.reclaim("acme")
                await asyncio.sleep(0.02)
            delivery.images = 1
            delivery.end(complete=True)
        await bench.meter.close(timeout_s=1)
        assert [entry["outcome"] for entry in await entries(bench, key)] == ["delivered"]
        await bench.check_books(key)


async def test_leases_are_renewed_in_one_call_for_all_of_a_team(bench: Bench) -> None:
    keys = [await bench.make_key(None, team=team) for team in ("acme", "other")]
    leases = Leases(bench.store, lease_ms=60_000)
    for number in range(60):
        key = keys[number % 2]
        await bench.admit(key, f"req_{number}", 1)
        leases.hold(f"req_{number}", key.team)
    leases.drop("req_0")
    before = await bench.redis.info("commandstats")
    await leases.renew()
    after = await bench.redis.info("commandstats")
    calls = [stats.get("cmdstat_evalsha", {}).get("calls", 0) + stats.get("cmdstat_eval", {}).get("calls", 0)
             for stats in (before, after)]  # fmt: skip
    assert calls[1] - calls[0] in (2, 4)  # one for each team, and once more where the script was new to the store


async def test_a_team_whose_node_hangs_holds_no_other_team_s_leases_up() -> None:
    renewed: Counter[str] = Counter()
    waiting: set[object] = set()
    at_once: list[int] = []

    class Hanging(OddStore):
        async def renew(self, team: str, _ids: Sequence[str]) -> None:
            renewed[team] += 1
            if team == "hanging":
                waiting.add(asyncio.current_task())
                at_once.append(len(waiting))
                try:
                    await asyncio.Event().wait()
                finally:
                    waiting.discard(asyncio.current_task())

        def on_connected(self, _callback: object) -> None:
            """Nothing connects."""

    leases = Leases(Hanging(cast("Store", None)), lease_ms=90)
    for team in ("acme", "hanging"):
        leases.hold(f"req_{team}", team)
    leases.start()
    await eventually(lambda: renewed["acme"] >= 5)
    await leases.stop()
    # What has not been answered is given up before it is asked for again, and at the end.
    assert set(at_once) == {1}
    assert waiting == set()


async def test_very_many_leases_do_not_hold_the_store_up_in_one_call(bench: Bench) -> None:
    key = await bench.make_key(None)
    leases = Leases(bench.store, lease_ms=60_000)
    for number in range(BATCH + 1):
        await bench.admit(key, f"req_{number}", 1)
        leases.hold(f"req_{number}", "acme")
    await run_out(bench)
    await leases.renew()
    await bench.store.reclaim("acme")
    assert bench.metrics.registry.get_sample_value("lightmeter_expired_leases_total") == 0
    assert len(leases) == BATCH + 1


async def test_one_that_was_taken_back_is_not_renewed_to_life(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    await bench.admit(key, "req_1", 5_000)
    await run_out(bench)
    await bench.store.reclaim("acme")
    await bench.store.renew("acme", ["req_1"])
    assert await bench.redis.zcard(LEASES) == 0
    await bench.check_books(key)


async def test_when_the_store_is_back_leases_are_renewed_before_anybody_is_admitted(store_url: str) -> None:
    async with open_bench(store_url) as bench, open_bench(store_url) as other:
        key = await bench.make_key(10_000)
        async with bench.meter.admit(key, Observation("req_1", ENDPOINT, model=MODEL), MODEL, quote(5_000)) as delivery:
            await run_out(other)
            assert bench.runner._connection is not None
            bench.runner._connection.abort()
            # The first to speak on the new connection would write the lease off.
            await bench.store.reclaim("acme")
            assert bench.metrics.registry.get_sample_value("lightmeter_expired_leases_total") == 0
            delivery.images = 1
            delivery.end(complete=True)
        await bench.meter.close(timeout_s=1)
        assert [entry["outcome"] for entry in await entries(bench, key)] == ["delivered"]


async def test_renewing_goes_on_after_the_store_was_away(store_url: str) -> None:
    async with open_bench(store_url, lease_ms=150) as bench:
        failures = 0
        renew = bench.store.renew

        async def fail_twice(team: str, reservation_ids: Sequence[str]) -> None:
            nonlocal failures
            if failures < 2:
                failures += 1
                raise StoreUnavailable
            await renew(team, reservation_ids)
            done.set()

        done = asyncio.Event()
        bench.store.renew = fail_twice  # type: ignore[method-assign]
        leases = Leases(bench.store, lease_ms=150)
        leases.hold("req_1", "acme")
        leases.start()
        async with asyncio.timeout(20):
            await done.wait()
        await leases.stop()
        assert failures == 2


DAYS = [
    (0, "1970-01-01"),
    (86_399_999, "1970-01-01"),
    (951_782_400_000, "2000-02-29"),
    (1_709_164_800_000, "2024-02-29"),
    (1_740_700_800_000, "2025-02-28"),
    (1_740_787_200_000, "2025-03-01"),
    (1_767_225_599_999, "2025-12-31"),
    (1_767_225_600_000, "2026-01-01"),
    (4_107_542_400_000, "2100-03-01"),
]


@pytest.mark.parametrize(("at_ms", "day"), DAYS)
async def test_the_store_s_calendar(store_url: str, at_ms: int, day: str) -> None:
    part = load_script("reclaim").text.partition("local function add_to")[0]
    calendar = part[part.index("local DAY_MS") :]
    told = f"{calendar} local day = day_of(ARGV[1]) return {{utc_day(day), utc_day(first_of_month(day))}}"
    async with open_bench(store_url) as bench:
        found = await bench.redis.eval(told, 0, at_ms)
    assert [text.decode() for text in found] == [day, f"{day[:8]}01"]


def test_a_runner_without_a_listener_connects(store_url: str) -> None:
    async def ask() -> bool:
        runner = ScriptRunner(store_url, Metrics(), timeout_s=2)
        answered = await runner.ping()
        await runner.close()
        return answered

    assert asyncio.run(ask())


MANY = 10_000
MOST_A_CALL = 100


async def fill_with_dead(bench: Bench, key: Credential, count: int) -> None:
    """``count`` leases that have run out, as a gateway leaves them that died; counters as admissions make them."""
    facts = orjson.dumps({"key": key.key_id, "endpoint": ENDPOINT, "model": MODEL, "requested_images": 1})
    pipe = bench.redis.pipeline(transaction=False)
    for number in range(count):
        pipe.execute_command("SET", f"lm:{{acme}}:reservation:dead_{number}", b"held 1 1700000000000 " + facts)
        pipe.execute_command("ZADD", LEASES, 1 + number, f"dead_{number}")
    for record in (f"lm:{{acme}}:key:{key.key_id}", "lm:{acme}:team"):
        counters = struct.pack(">13q", count, 0, 0, 0, count, *([0] * 8))
        pipe.execute_command("HSET", record, "counters", counters)
    await pipe.execute()


async def scripts_run(bench: Bench) -> int:
    stats = await bench.redis.info("commandstats")
    return sum(stats.get(name, {}).get("calls", 0) for name in ("cmdstat_evalsha", "cmdstat_eval"))


LOOKS: list[Callable[[Bench, Credential], Awaitable[object]]] = [
    lambda bench, key: bench.admit(key, "req_alive", 5_000),
    lambda bench, key: bench.store.read_own_key(key),
    lambda bench, key: bench.keys.usage(key.key_id),
    lambda bench, key: asyncio.gather(*(bench.admit(key, f"req_{number}", 100) for number in range(50))),
]


@pytest.mark.parametrize("look", LOOKS, ids=["admit", "own key", "usage", "50 at once"])
async def test_very_many_leases_that_run_out_at_once_hold_the_store_up_for_no_call(
    bench: Bench, look: Callable[[Bench, Credential], Awaitable[object]]
) -> None:
    key = await bench.make_key(MANY)
    await fill_with_dead(bench, key, MANY)
    before = await scripts_run(bench)
    await look(bench, key)
    assert await scripts_run(bench) - before >= MANY / MOST_A_CALL
    assert await bench.redis.zcount(LEASES, 0, 10**12) == 0
    assert await bench.redis.xlen("lm:{acme}:ledger") == MANY
    assert bench.metrics.registry.get_sample_value("lightmeter_expired_leases_total") == MANY


async def test_a_made_up_secret_takes_nothing_back(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    await fill_with_dead(bench, key, 200)
    stranger = replace(key, secret_sha256="0" * 64)
    with pytest.raises(InvalidApiKey):
        await bench.admit(stranger, "req_stranger", 5_000)
    with pytest.raises(InvalidApiKey):
        await bench.store.read_own_key(stranger)
    assert await bench.redis.zcard(LEASES) == 200
    assert await bench.redis.xlen("lm:{acme}:ledger") == 0
