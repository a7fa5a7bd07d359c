"""Every limit at once, on real stores, against plain Python: the same decisions and the same counters, always."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from proxy.domain.api_key import Credential
from proxy.domain.billing.settlement import Delivery, Reservation, settle
from proxy.domain.errors import Conflict, InsufficientQuota, ProxyError, RateLimitExceeded
from proxy.domain.limits import Limits, whole_seconds
from proxy.metering.redis import scripts
from tests.metering.conftest import Bench, open_bench
from tests.metering.limits_model import ModelAccount, ModelStore

T = TypeVar("T")

PRICE = 100
LEASE_MS = 90_000
BURST_MS = 30_000
CLOCK = "lm:test-clock"
MOVED_CLOCK = f"""
local now_us = tonumber(redis.call('GET', '{CLOCK}'))
local now_ms = math.floor(now_us / 1000)
"""
NEW_YEARS_EVE_US = int(datetime(2026, 12, 31, 23, 58, tzinfo=UTC).timestamp()) * 1_000_000
DAY_US = 86_400_000_000


@pytest.fixture
def moved_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts as they are, but for the one line that asks for the time."""
    texts = {**scripts._texts(), "clock": MOVED_CLOCK}
    monkeypatch.setattr(scripts, "_texts", lambda: texts)
    scripts.load_script.cache_clear()
    yield
    scripts.load_script.cache_clear()


def maybe(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.none() | numbers


some_limits = st.builds(
    Limits,
    quota_units=maybe(st.integers(0, 30).map(lambda images: images * PRICE)),
    quota_units_per_day=maybe(st.integers(0, 10).map(lambda images: images * PRICE + 1)),
    quota_units_per_month=maybe(st.integers(0, 20).map(lambda images: images * PRICE)),
    requests_per_minute=maybe(st.sampled_from([1, 2, 7, 60, 1_000_000])),
    images_per_minute=maybe(st.sampled_from([1, 6, 7, 60])),
    concurrent_requests=maybe(st.integers(1, 4)),
)
which_key = st.sampled_from(["first", "second"])


def check_refusal(error: ProxyError, code: str, scope: str, what: str, wait_us: int) -> None:
    assert ("its team" in error.message) == (scope == "team")
    if isinstance(error, InsufficientQuota):
        assert (code, error.retry_after_s) == ("insufficient_quota", None)
        assert f"({what}: " in error.message
    else:
        assert code == "rate_limited"
        assert f"for {what}: " in error.message
        assert error.retry_after_s == (None if wait_us < 0 else whole_seconds(wait_us))


class LimitsMachine(RuleBasedStateMachine):
    """One team, two keys, and a clock that begins two minutes before a new year."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.bench: Bench = self.run(
            self.stack.enter_async_context(
                open_bench(self.url, lease_ms=LEASE_MS, settled_ids_ms=3_600_000, burst_ms=BURST_MS)
            )
        )
        self.run(self.bench.redis.flushall())
        self.model = ModelStore(ModelAccount(Limits()), {}, NEW_YEARS_EVE_US, BURST_MS * 1_000)
        self.keys: dict[str, Credential] = {}
        self.held: list[tuple[str, Reservation, str]] = []
        self.renewed_us = self.model.now_us
        self.count = 0
        self.set_clock()

    def run(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            return await work

        return self.loop.run(wait())

    def set_clock(self) -> None:
        self.run(self.bench.redis.set(CLOCK, self.model.now_us))

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()

    @initialize(team=some_limits, first=some_limits, second=some_limits)
    def make(self, team: Limits, first: Limits, second: Limits) -> None:
        self.run(self.bench.teams.create("acme", name="", limits=team))
        self.model.team.limits = team
        for name, limits in (("first", first), ("second", second)):
            self.keys[name] = self.run(self.bench.make_key(limits=limits))
            self.model.keys[name] = ModelAccount(limits)

    @rule(name=which_key, images=st.integers(1, 4))
    def admit(self, name: str, images: int) -> None:
        refusal = self.model.refusal(name, images * PRICE, images)
        self.count += 1
        request = f"req_{self.count}"
        if refusal is not None:
            with pytest.raises((InsufficientQuota, RateLimitExceeded)) as refused:
                self.run(self.bench.admit(self.keys[name], request, PRICE, images))
            check_refusal(refused.value, *refusal)
            return
        reservation = self.run(self.bench.admit(self.keys[name], request, PRICE, images))
        for account in (self.model.keys[name], self.model.team):
            account.take(self.model.day, images * PRICE, images, self.model.now_us)
        again = self.run(self.bench.admit(self.keys[name], request, PRICE, images))
        assert again.admitted_ms == reservation.admitted_ms
        self.held.append((name, reservation, self.model.day))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 100), made=st.integers(0, 5))
    def settle(self, which: int, made: int) -> None:
        name, reservation, day = self.held.pop(which % len(self.held))
        settlement = settle(reservation, Delivery(images=made))
        assert self.run(self.bench.store.settle(settlement)) == self.run(self.bench.store.settle(settlement))
        for account in (self.model.keys[name], self.model.team):
            account.end(day, reservation.quote.units, made * PRICE)

    @precondition(lambda self: self.held)
    @rule()
    def void(self) -> None:
        """An admission whose reply was lost, voided at once: it leaves no trace, also in the rate limits."""
        name, reservation, day = self.held.pop()
        key = self.keys[name]
        for _ in range(2):
            self.run(self.bench.store.void(reservation.id, key.team, key.key_id))
        for account in (self.model.keys[name], self.model.team):
            account.end(day, reservation.quote.units, 0)
            for kind, amount in (("requests", 1), ("images", reservation.quote.images)):
                limit = getattr(account.limits, f"{kind}_per_minute")
                if limit is not None and kind in account.due_us:
                    account.due_us[kind] -= amount * -(-60_000_000 // limit)

    @rule(seconds=st.sampled_from([0, 1, 7, 29, 60, 119, 3_600]))
    def wait(self, seconds: int) -> None:
        """Time passes, and the gateway lives: it renews its leases."""
        self.model.now_us += seconds * 1_000_000
        self.set_clock()
        ids = [reservation.id for _, reservation, _ in self.held]
        if ids:
            self.run(self.bench.store.renew("acme", ids))

    @rule(days=st.sampled_from([1, 27, 40]))
    def gateway_dies(self, days: int) -> None:
        """Days pass, and nobody renews: what was held runs out."""
        self.model.now_us += days * DAY_US
        self.set_clock()
        for name, reservation, day in self.held:
            for account in (self.model.keys[name], self.model.team):
                account.end(day, reservation.quote.units, 0)
        self.held = []

    @rule(name=which_key, limits=some_limits)
    def change_key(self, name: str, limits: Limits) -> None:
        self.model.keys[name].limits = limits
        changes = {field: getattr(limits, field) for field in Limits.__dataclass_fields__}
        self.run(self.bench.keys.update(self.keys[name].key_id, changes))

    @rule(limits=some_limits)
    def change_team(self, limits: Limits) -> None:
        self.model.team.limits = limits
        self.run(
            self.bench.teams.update("acme", {field: getattr(limits, field) for field in Limits.__dataclass_fields__})
        )

    @rule(name=st.sampled_from(["first", "second", "team"]), images=st.integers(-3, 5))
    def grant(self, name: str, images: int) -> None:
        account = self.model.team if name == "team" else self.model.keys[name]
        whose = "acme" if name == "team" else self.keys[name].key_id
        make = self.bench.teams.grant if name == "team" else self.bench.keys.grant
        try:
            self.run(make(whose, quota_units=images * PRICE, reason="test"))
        except Conflict:
            assert account.limits.quota_units is None
        else:
            assert account.limits.quota_units is not None
            account.granted += images * PRICE

    @invariant()
    def counters_are_the_same(self) -> None:
        if not self.keys:
            return
        found = {name: self.run(self.bench.keys.get(key.key_id)) for name, key in self.keys.items()}
        team = self.run(self.bench.teams.get("acme"))
        for account, record in (*((self.model.keys[name], found[name]) for name in found), (self.model.team, team)):
            assert record.held == account.held
            for name, limit, posted, reserved in account.quotas(self.model.day):
                usage = record.quotas[name]
                assert (usage.limit, usage.posted, usage.reserved) == (limit, posted, reserved), name
            assert record.limits == replace(account.limits, models=("*",))


@pytest.mark.usefixtures("moved_clock")
def test_all_limits_decide_and_count_as_the_model_does(shared_store_url: str) -> None:
    class OnThisStore(LimitsMachine):
        url = shared_store_url

    run_state_machine_as_test(
        OnThisStore,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=20_000,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
