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
from redis.asyncio import Redis

from proxy.domain.api_key import Credential
from proxy.domain.billing.settlement import Delivery, Reservation, settle
from proxy.domain.errors import Conflict, InsufficientQuota, ProxyError, RateLimitExceeded
from proxy.domain.limits import Limits, LimitsPerUser, UserLimits, whole_seconds
from proxy.metering.redis import scripts
from proxy.metering.redis_store.facts import user_usage
from proxy.metering.redis_store.keys import used_by_user
from proxy.metering.redis_store.user_counters import read_counters
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
MOVED_LATE_CLOCK = f"local function clock_us() return tonumber(redis.call('GET', '{CLOCK}')) end\n"
DAY_US = 86_400_000_000


@pytest.fixture
def moved_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts as they are, but for the lines that ask for the time."""
    texts = {**scripts._texts(), "clock": MOVED_CLOCK, "late_clock": MOVED_LATE_CLOCK}
    monkeypatch.setattr(scripts, "_texts", lambda: texts)
    scripts.load_script.cache_clear()
    yield
    scripts.load_script.cache_clear()


def maybe(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.none() | numbers


some_users = st.fixed_dictionaries(
    {
        "quota_units_per_day": maybe(st.integers(0, 6).map(lambda images: images * PRICE)),
        "quota_units_per_month": maybe(st.integers(0, 9).map(lambda images: images * PRICE + 1)),
        "images_per_minute": maybe(st.sampled_from([1, 6, 7, 60])),
        "concurrent_requests": maybe(st.integers(1, 3)),
    }
)
limits_per_user = st.builds(
    lambda every, own: LimitsPerUser(**every, users={user: UserLimits(**each) for user, each in own.items()}),
    some_users,
    st.dictionaries(st.sampled_from(["bob", ""]), some_users),
)
some_limits = st.builds(
    Limits,
    limits_per_user=st.none() | limits_per_user,
    quota_units=maybe(st.integers(0, 30).map(lambda images: images * PRICE)),
    quota_units_per_day=maybe(st.integers(0, 10).map(lambda images: images * PRICE + 1)),
    quota_units_per_month=maybe(st.integers(0, 20).map(lambda images: images * PRICE)),
    requests_per_minute=maybe(st.sampled_from([1, 2, 7, 60, 1_000_000])),
    images_per_minute=maybe(st.sampled_from([1, 6, 7, 60])),
    concurrent_requests=maybe(st.integers(1, 4)),
)
which_key = st.sampled_from(["first", "second"])
which_user = st.sampled_from(["änn", "bob", ""])


def check_refusal(error: ProxyError, user: str, code: str, scope: str, what: str, wait_us: int) -> None:
    who = f"the user '{user}'" + ("" if user else " (who is whoever names none)")
    whose = {"key": "the key", "team": "its team", "key_user": f"{who} of the key", "team_user": f"{who} of its team"}
    assert f" {whose[scope]} " in error.message
    assert ("the user" in error.message) == ("limits_per_user." in error.message) == scope.endswith("_user")
    if isinstance(error, InsufficientQuota):
        assert (code, error.retry_after_s) == ("insufficient_quota", None)
        assert f"{what}: " in error.message
    else:
        assert code == "rate_limited"
        assert f"for {what}: " in error.message
        assert error.retry_after_s == (None if wait_us < 0 else whole_seconds(wait_us))


async def read_bytes(redis: Redis, name: str) -> bytes | None:
    found = await redis.get(name)
    assert found is None or isinstance(found, bytes)
    return found


class LimitsMachine(RuleBasedStateMachine):
    """One team, two keys, three users, and a clock that begins two minutes before a new year."""

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
        self.held: list[tuple[list[ModelAccount], Reservation, str]] = []
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

    @rule(name=which_key, images=st.integers(1, 4), user=which_user)
    def admit(self, name: str, images: int, user: str) -> None:
        refusal = self.model.refusal(name, user, images * PRICE, images)
        self.count += 1
        request = f"req_{self.count}"
        if refusal is not None:
            with pytest.raises((InsufficientQuota, RateLimitExceeded)) as refused:
                self.run(self.bench.admit(self.keys[name], request, PRICE, images, user))
            check_refusal(refused.value, user, *refusal)
            return
        reservation = self.run(self.bench.admit(self.keys[name], request, PRICE, images, user))
        users = [each for _scope, each in self.model.users_of(name, user)]
        accounts = [self.model.keys[name], self.model.team, *users]
        for account in accounts:
            account.take(self.model.day, images * PRICE, images, self.model.now_us)
        again = self.run(self.bench.admit(self.keys[name], request, PRICE, images, user))
        assert (again.admitted_ms, again.per_user) == (reservation.admitted_ms, reservation.per_user)
        self.held.append((accounts, reservation, self.model.day))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 100), made=st.integers(0, 5))
    def settle(self, which: int, made: int) -> None:
        accounts, reservation, day = self.held.pop(which % len(self.held))
        settlement = settle(reservation, Delivery(images=made))
        assert self.run(self.bench.store.settle(settlement)) == self.run(self.bench.store.settle(settlement))
        for account in accounts:
            account.end(day, reservation.quote.units, made * PRICE)

    @precondition(lambda self: self.held)
    @rule()
    def void(self) -> None:
        """An admission whose reply was lost, voided at once: it leaves no trace, also in the rate limits."""
        accounts, reservation, day = self.held.pop()
        for _ in range(2):
            self.run(self.bench.store.void(reservation.id, reservation.team, reservation.key_id))
        self.limit_users()
        for account in accounts:
            account.end(day, reservation.quote.units, 0)
            for kind, amount in (("requests", 1), ("images", reservation.quote.images)):
                limit = getattr(account.limits, f"{kind}_per_minute")
                if limit is not None and kind in account.due_us:
                    account.due_us[kind] -= amount * -(-60_000_000 // limit)

    def limit_users(self) -> None:
        """Give each user of the model the limits of now."""
        for (whose, user), one in self.model.users.items():
            per_user = (self.model.keys[whose] if whose else self.model.team).limits.limits_per_user
            if per_user is None:
                one.limits = Limits()
            else:
                self.model.user(whose, user, per_user.of(user))

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
        for accounts, reservation, day in self.held:
            for account in accounts:
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

    @invariant()
    def users_have_used_the_same(self) -> None:
        if not self.model.users:
            return
        self.limit_users()
        at = self.run(self.bench.store.reclaim("acme"))
        ids = {"": "", **{name: key.key_id for name, key in self.keys.items()}}
        names = [used_by_user("acme", ids[whose], user) for whose, user in self.model.users]
        stored: list[bytes | None] = [self.run(read_bytes(self.bench.redis, name)) for name in names]
        for (whose, user), one, counters in zip(self.model.users, self.model.users.values(), stored, strict=True):
            one.forget(self.model.now_us)
            found = user_usage(user, UserLimits(), counters, at)
            assert found.held == one.held
            due_us = read_counters(counters, at.now_us // 1_000).images_due_us
            assert max(due_us, at.now_us) == max(one.due_us.get("images", 0), at.now_us), (whose, user)
            for name, _limit, posted, reserved in one.quotas(self.model.day)[1:]:
                usage = found.quotas[name]
                assert (usage.posted, usage.reserved) == (posted, reserved), (whose, user, name)


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
