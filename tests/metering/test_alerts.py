"""Alerts of two gateways on one real store: each is told once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from unittest.mock import AsyncMock, patch

import pytest

from proxy.alerts import alerts as alerts_module
from proxy.alerts.alerts import Alerts
from proxy.alerts.marks import Marks
from proxy.alerts.rules import Rule, SendingError
from proxy.domain.alerts import Alert
from proxy.domain.api_key import Credential
from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import InsufficientQuota, StoreUnavailable
from proxy.domain.limits import Account, KeyRecord, Limits
from tests.metering.conftest import Bench
from tests.support.polling import eventually


@dataclass
class Told:
    """Somebody who notes what they are told; the first ``failures`` times it fails."""

    failures: int = 0
    sent: list[tuple[str, str]] = field(default_factory=list)
    tries: list[str] = field(default_factory=list)

    async def send(self, alert: Alert, alert_id: str) -> None:
        self.tries.append(alert_id)
        await asyncio.sleep(0)
        if len(self.tries) <= self.failures:
            raise SendingError("not now")
        self.sent.append((alert.name, alert_id))

    async def close(self) -> None:
        pass

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.sent]


@dataclass
class Watch:
    """One gateway's alerts."""

    marks: Marks
    alerts: Alerts
    refusals: dict[str, float]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def gateways(bench: Bench, told: Told, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Watch, Watch]]:
    monkeypatch.setattr(alerts_module, "PAUSE_S", 0.01)
    monkeypatch.setattr(alerts_module, "WAITS_S", (0.0, 0.0, 0.0))
    async with AsyncExitStack() as stack:
        watches = []
        for _ in range(2):
            watch = watch_of(bench, told)
            watch.alerts.start()
            stack.push_async_callback(watch.alerts.stop)
            watches.append(watch)
        yield watches[0], watches[1]


def watch_of(bench: Bench, told: Told, **rule: object) -> Watch:
    marks, refusals = Marks(), {"openai": 0.0}
    rules = [Rule("ops", told, **rule)]  # type: ignore[arg-type]
    return Watch(marks, Alerts(rules, marks, bench.keys, bench.teams, bench.pool, lambda: refusals), refusals)


async def spend(bench: Bench, key: Credential, request: str, units: int) -> None:
    reservation = await bench.admit(key, request, units)
    delivery = Delivery(images=1)
    delivery.end(complete=True)
    await bench.store.settle(settle(reservation, delivery))


async def until(told: Told, count: int) -> None:
    async def is_so() -> bool:
        return len(told.sent) >= count

    await eventually(is_so)
    # What must not come would be there by then: both have looked several times.
    await asyncio.sleep(0.1)


async def test_each_share_is_told_once_over_all_gateways(
    bench: Bench, told: Told, gateways: tuple[Watch, Watch]
) -> None:
    key = await bench.make_key(10_000)
    for request, units, shares in (("req_1", 4_000, 0), ("req_2", 2_000, 1), ("req_3", 3_000, 2), ("req_4", 1_000, 3)):
        await spend(bench, key, request, units)
        for gateway in gateways * 3:
            gateway.marks.charged(key.key_id)
            await asyncio.sleep(0.01)
        await until(told, shares)
        assert [name.rpartition("/")[2] for name in told.names] == ["50", "80", "100"][:shares]
    assert len({alert_id for _, alert_id in told.sent}) == 3


async def test_a_process_that_begins_anew_knows_what_was_told(bench: Bench, told: Told) -> None:
    key = await bench.make_key(10_000)
    await spend(bench, key, "req_1", 9_000)
    for _ in range(2):
        watch = watch_of(bench, told)
        watch.marks.charged(key.key_id)
        # It has not begun to look: the last look is at its end.
        await watch.alerts.stop()
    assert len(told.sent) == 1


async def test_a_node_that_is_away_holds_up_nobody_s_alerts_but_those_of_its_teams(
    bench: Bench, told: Told, gateways: tuple[Watch, Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, read_many, is_away = gateways[0], bench.keys.read_many, True

    async def read_what_is_there(ids: Sequence[str]) -> list[KeyRecord]:
        if is_away and any(key_id.startswith("away") for key_id in ids):
            raise StoreUnavailable
        return await read_many(ids)

    monkeypatch.setattr(bench.keys, "read_many", read_what_is_there)
    monkeypatch.setattr(alerts_module, "place_of", lambda _redis, name: name)
    for team in ("away", "here"):
        key = await bench.make_key(10_000, team=team)
        await spend(bench, key, f"req_{team}", 6_000)
        watch.marks.charged(key.key_id)
    await until(told, 1)
    assert ["here" in name for name in told.names] == [True]
    is_away = False
    await until(told, 2)
    assert "away" in told.names[1]


async def test_a_refusal_tells_of_the_quota_that_refused(
    bench: Bench, told: Told, gateways: tuple[Watch, Watch]
) -> None:
    key = await bench.make_key(1_000_000)
    await bench.teams.update("acme", {"quota_units": 7_000})
    await spend(bench, key, "req_1", 5_000)
    with pytest.raises(InsufficientQuota):
        await bench.admit(key, "req_2", 5_000)
    gateways[0].marks.refused(key.key_id)
    await until(told, 1)
    assert [name.split("/")[:3] + name.split("/")[-1:] for name in told.names] == [["quota", "team", "acme", "100"]]


async def test_what_a_receiver_does_not_take_is_sent_again_with_the_same_id(
    bench: Bench, told: Told, gateways: tuple[Watch, Watch]
) -> None:
    told.failures = 3
    key = await bench.make_key(10_000)
    await spend(bench, key, "req_1", 10_000)
    gateways[1].marks.charged(key.key_id)
    await until(told, 1)
    assert len(told.tries) == 4
    assert len(set(told.tries)) == 1


async def test_what_was_never_taken_is_left_for_later_and_not_remembered_as_told(bench: Bench, told: Told) -> None:
    told.failures = 100
    key = await bench.make_key(10_000)
    await spend(bench, key, "req_1", 10_000)
    watch = watch_of(bench, told)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alerts_module, "WAITS_S", (0.0,))
        watch.marks.charged(key.key_id)
        await watch.alerts.stop()
    (claim,) = await bench.redis.keys("lm:{acme}:alert:*")
    assert await bench.redis.get(claim) == b"sending"
    assert 0 < await bench.redis.ttl(claim) <= alerts_module.CLAIM_S


async def test_a_key_about_to_expire_is_told_of_by_one_of_them(bench: Bench, told: Told) -> None:
    soon = int(time.time() * 1_000) + 86_400_000
    for team, expires_ms in (("acme", soon), ("acme", None), ("other", soon + 30 * 86_400_000)):
        await bench.keys.create(team, name="nightly", limits=Limits(), expires_ms=expires_ms)
    watches = [watch_of(bench, told) for _ in range(2)]
    for watch in watches:
        watch.alerts.start()
    await until(told, 1)
    for watch in watches:
        await watch.alerts.stop()
    assert [name.split("/")[0] for name in told.names] == ["key_expiry"]


async def test_a_provider_out_of_credit_is_told_of_once(told: Told, gateways: tuple[Watch, Watch]) -> None:
    for gateway in gateways:
        for _ in range(3):
            gateway.refusals["openai"] += 1
            await asyncio.sleep(0.02)
    await until(told, 1)
    assert [name.split("/")[:2] for name in told.names] == [["provider_credit", "openai"]]


async def test_a_rule_tells_of_its_kinds_its_teams_and_its_soft_limits(bench: Bench, told: Told) -> None:
    key, other = await bench.make_key(10_000), await bench.make_key(10_000, team="other")
    await spend(bench, key, "req_1", 10_000)
    await spend(bench, other, "req_2", 10_000)
    soft = {"quota_units_per_month": 10_000}
    watch = watch_of(
        bench, told, kinds=frozenset({"soft_limit"}), teams=frozenset({"other"}), soft_limits=soft, at=(80,)
    )
    for each in (key, other):
        watch.marks.charged(each.key_id)
    await watch.alerts.stop()
    assert [name.split("/")[:3] for name in told.names] == [["soft_limit", "team", "other"]]


async def test_requests_have_their_turn_while_very_many_accounts_are_looked_at(bench: Bench, told: Told) -> None:
    ids = [(await bench.make_key(10_000, team=f"team-{number}")).key_id for number in range(20)]
    keys = await bench.keys.read_many(ids)
    watch, turns, at_once = watch_of(bench, told), 0, []

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def note(account: Account, *, refused: bool) -> Iterator[Alert]:
        at_once.append(turns)
        return iter(())

    for key_id in ids:
        watch.marks.charged(key_id)
    with patch.object(bench.keys, "read_many", AsyncMock(return_value=keys * 100)), patch.object(Rule, "of_account"):
        Rule.of_account.side_effect = note  # type: ignore[attr-defined]
        other = asyncio.create_task(others())
        await watch.alerts.stop()
        other.cancel()
    assert max(Counter(at_once).values()) <= alerts_module.ACCOUNTS_A_TURN


class Silent(Told):
    """Somebody who never answers."""

    async def send(self, alert: Alert, alert_id: str) -> None:
        self.tries.append(alert_id)
        await asyncio.Event().wait()


@pytest.fixture
def quick_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts_module, "LAST_S", 0.1)


@pytest.mark.usefixtures("quick_end")
async def test_a_receiver_that_hangs_holds_up_no_other(bench: Bench, told: Told) -> None:
    refusals = dict.fromkeys((f"provider-{number}" for number in range(2 * alerts_module.SENDING_AT_ONCE)), 0.0)
    silent = Silent()
    alerts = Alerts(
        [Rule("silent", silent), Rule("ops", told)], Marks(), bench.keys, bench.teams, bench.pool, lambda: refusals
    )
    refusals.update(dict.fromkeys(refusals, 1.0))
    alerts.start()
    await until(told, len(refusals))
    assert len(silent.tries) == alerts_module.SENDING_AT_ONCE
    await alerts.stop()


@pytest.mark.usefixtures("quick_end")
async def test_what_waits_for_a_receiver_that_hangs_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts_module, "WAITING_LIMIT", 30)
    refusals = dict.fromkeys((f"provider-{number}" for number in range(100)), 0.0)
    alerts = Alerts([Rule("silent", Silent())], Marks(), bench.keys, bench.teams, bench.pool, lambda: refusals)
    refusals.update(dict.fromkeys(refusals, 1.0))
    await alerts._look_at_providers()
    assert len(alerts._sending) == 30
    await alerts.stop()
