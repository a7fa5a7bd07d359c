from __future__ import annotations

import math
from collections import Counter, deque
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.domain.catalog import Deployment, Model
from proxy.upstream.breaker import BreakerPolicy, Result, State
from proxy.upstream.routing import Attempt, Balancer, RetryBudget

POLICY = BreakerPolicy(consecutive=3, least_requests=10, open_s=5, open_limit_s=20, window_s=30)
KEY = "acme_1"


def balancer(*deployments: Deployment) -> Balancer:
    model = Model("acme/image-1", "a", "image-1", Decimal(1), frozenset(), deployments=deployments)
    return Balancer(model, POLICY)


def at(provider: str, **more: Any) -> Deployment:
    return Deployment(provider, f"{provider}-image", **more)


def chosen(attempt: Attempt | None) -> str:
    assert attempt is not None
    return attempt.target.deployment.provider


def ask(
    routes: Balancer,
    now_s: float,
    result: Result = Result.OK,
    retry_after_s: float | None = None,
    *,
    key_id: str = KEY,
) -> str:
    """One request from beginning to end."""
    attempt = routes.begin(now_s, key_id)
    assert attempt is not None
    routes.end(attempt, now_s, result, retry_after_s)
    return chosen(attempt)


@given(weights=st.lists(st.integers(1, 20), min_size=1, max_size=5), rounds=st.integers(1, 5))
def test_a_quiet_gateway_shares_by_weight(weights: list[int], rounds: int) -> None:
    routes = balancer(*(at(str(index), weight=weight) for index, weight in enumerate(weights)))
    counts = Counter(ask(routes, 0) for _ in range(rounds * sum(weights)))
    assert counts == {str(index): rounds * weight for index, weight in enumerate(weights)}


@given(weights=st.lists(st.integers(1, 20), min_size=1, max_size=5), rounds=st.integers(1, 5))
def test_a_busy_gateway_shares_by_weight(weights: list[int], rounds: int) -> None:
    routes = balancer(*(at(str(index), weight=weight) for index, weight in enumerate(weights)))
    counts = Counter(chosen(routes.begin(0, KEY)) for _ in range(rounds * sum(weights)))
    assert counts == {str(index): rounds * weight for index, weight in enumerate(weights)}


@given(weights=st.lists(st.integers(1, 20), min_size=1, max_size=5), at_a_time=st.integers(1, 60))
@example(weights=[1, 20], at_a_time=2)
@example(weights=[17, 1, 5, 18], at_a_time=4)
@example(weights=[18, 19, 19, 19, 19], at_a_time=9)
def test_weights_hold_at_any_number_of_requests_at_a_time(weights: list[int], at_a_time: int) -> None:
    """Requests that all take as long: the lightest one is often without any, and does not get the next for that."""
    routes = balancer(*(at(str(index), weight=weight) for index, weight in enumerate(weights)))
    under_way: deque[Attempt] = deque()
    counts: Counter[str] = Counter()
    rounds = 10
    for _ in range(rounds * sum(weights)):
        if len(under_way) == at_a_time:
            routes.end(under_way.popleft(), 0, Result.OK)
        attempt = routes.begin(0, KEY)
        counts[chosen(attempt)] += 1
        assert attempt is not None
        under_way.append(attempt)
    assert counts == {str(index): rounds * weight for index, weight in enumerate(weights)}


@pytest.mark.parametrize(("weights", "shares"), [((1, 1), (30, 30)), ((2, 1), (40, 20))])
def test_spares_share_what_the_main_one_refuses(weights: tuple[int, int], shares: tuple[int, int]) -> None:
    spares = [at(str(index), priority=1, weight=weight) for index, weight in enumerate(weights)]
    routes = balancer(*spares, at("main"))
    counts: Counter[str] = Counter()
    for _ in range(60):
        first = routes.begin(0, KEY)
        assert first is not None
        assert chosen(first) == "main"
        routes.end(first, 0, Result.RATE_LIMITED)
        second = routes.begin(0, KEY, frozenset({first.target.index}))
        assert second is not None
        counts[chosen(second)] += 1
        routes.end(second, 0, Result.OK)
    assert counts == {"0": shares[0], "1": shares[1]}


def test_a_second_try_counts_as_a_turn() -> None:
    """What a light one gets as second tries, it does not get as first ones."""
    routes = balancer(at("light"), at("heavy", weight=3))
    order = []
    for number in range(40):
        first = routes.begin(0, KEY)
        assert first is not None
        order.append(chosen(first))
        refused = chosen(first) == "heavy" and number % 8 == 0
        routes.end(first, 0, Result.RATE_LIMITED if refused else Result.OK)
        if refused:
            second = routes.begin(0, KEY, frozenset({first.target.index}))
            assert second is not None
            order.append(chosen(second))
            routes.end(second, 0, Result.OK)
    assert abs(order.count("light") - len(order) / 4) <= 1


def test_the_one_that_is_slow_gets_less() -> None:
    routes = balancer(at("slow"), at("quick"))
    assert chosen(routes.begin(0, KEY)) == "slow"
    assert [ask(routes, 0) for _ in range(3)] == ["quick"] * 3


def test_a_higher_priority_number_is_asked_only_when_the_lower_ones_cannot() -> None:
    routes = balancer(at("spare", priority=1), at("main", max_in_flight=2))
    assert [chosen(routes.begin(0, KEY)) for _ in range(3)] == ["main", "main", "spare"]


def test_nobody_is_left() -> None:
    routes = balancer(at("a", max_in_flight=1), at("b"))
    assert chosen(routes.begin(0, KEY)) == "a"
    assert routes.begin(0, KEY, frozenset({1})) is None
    assert not routes.has_another(0, KEY, frozenset({1}))


def test_one_that_was_away_does_not_catch_up() -> None:
    routes = balancer(at("a"), at("b"))
    assert ask(routes, 0, Result.RATE_LIMITED, 10) == "a"
    assert {ask(routes, 1) for _ in range(100)} == {"b"}
    # It comes back to where the last request began, a turn ahead of the other one; from there on they take turns.
    assert "".join(ask(routes, 11) for _ in range(10)) == "aababababa"


def test_the_first_that_comes_back_is_known() -> None:
    routes = balancer(at("a"), at("b"), at("c"))
    ask(routes, 0, Result.RATE_LIMITED, 30)
    ask(routes, 0, Result.RATE_LIMITED, 20)
    for _ in range(POLICY.consecutive):
        ask(routes, 0, Result.FAILED)
    assert not routes.all_paused(0, KEY)
    a, b, c = routes.targets
    assert [routes.available_in_s(0, KEY, besides) for besides in (None, c, b)] == [5, 20, 5]
    # An open breaker that is asked to pause as well is away for the longer of the two.
    c.paused_until_s = 40
    assert [routes.available_in_s(0, KEY, besides) for besides in (None, b)] == [20, 30]
    assert routes.all_paused(0, KEY)
    assert balancer(at("a")).available_in_s(0, KEY, a) == 0
    alone = balancer(at("a"))
    assert alone.available_in_s(0, KEY, alone.targets[0]) == math.inf


def test_a_pause_that_the_provider_asks_for_is_bounded() -> None:
    routes = balancer(at("a"))
    ask(routes, 0, Result.RATE_LIMITED, 3600)
    assert routes.all_paused(POLICY.pause_limit_s - 1, KEY)
    assert routes.available_in_s(0, KEY) == POLICY.pause_limit_s
    assert list(routes.states(0)) == [("a", State.OPEN)]
    assert routes.begin(POLICY.pause_limit_s - 1, KEY) is None
    assert ask(routes, POLICY.pause_limit_s) == "a"


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 3)), max_size=200))
def test_retries_stay_within_their_budget(steps: list[tuple[float, int]]) -> None:
    budget, now_s, requests, retries = RetryBudget(), 0.0, 0, 0
    budget.take(0)
    for step_s, wanted in steps:
        now_s += step_s
        budget.request()
        requests += 1
        retries += sum(budget.take(now_s) for _ in range(wanted))
    assert retries <= budget.limit + budget.share * requests + budget.floor_per_s * now_s + 1e-6


def test_a_pause_on_one_keys_word_is_short_for_the_others() -> None:
    routes = balancer(at("a"))
    ask(routes, 0, Result.RATE_LIMITED, 300, key_id="poisoner")
    assert [routes.available_in_s(0, key_id) for key_id in ("poisoner", "other")] == [300, POLICY.first_pause_s]
    assert (routes.all_paused(5, "poisoner"), routes.all_paused(5, "other")) == (True, False)
    assert list(routes.states(5)) == [("a", State.OPEN)]
    assert ask(routes, 5, key_id="other") == "a"
    # It is as the last key sees it that was sent there.
    assert list(routes.states(5)) == [("a", State.CLOSED)]
    # Told again, the same key stops nobody but itself.
    ask(routes, 300, Result.RATE_LIMITED, 200, key_id="poisoner")
    assert [routes.available_in_s(300, key_id) for key_id in ("poisoner", "other")] == [200, 0]


@pytest.mark.parametrize(("first_s", "second_s", "paused_s"), [(300, 40, 50), (40, 300, 40), (8, 3, 13), (2, 300, 15)])
def test_a_pause_that_two_keys_are_told_of_is_everybodys(first_s: float, second_s: float, paused_s: float) -> None:
    """The second one ten seconds later: until the earlier of the two ends, where the first one is not over."""
    routes = balancer(at("a"))
    ask(routes, 0, Result.RATE_LIMITED, first_s, key_id="one")
    assert ask(routes, 10, Result.RATE_LIMITED, second_s, key_id="two") == "a"
    assert routes.available_in_s(10, "newcomer") == paused_s - 10
    assert routes.available_in_s(10, "two") == max(second_s, paused_s - 10)


@given(st.lists(st.tuples(st.floats(0, 20), st.none() | st.floats(0, 1000)), max_size=100))
def test_one_key_pauses_others_once_and_for_a_few_seconds(steps: list[tuple[float, float | None]]) -> None:
    routes, now_s, first_s = balancer(at("a")), 0.0, math.inf
    for step_s, pause_s in steps:
        now_s += step_s
        if routes.has_another(now_s, "poisoner", frozenset()):
            ask(routes, now_s, Result.FAILED if pause_s is None else Result.RATE_LIMITED, pause_s, key_id="poisoner")
            first_s = first_s if pause_s is None else min(first_s, now_s)
        if not first_s <= now_s <= first_s + POLICY.first_pause_s:
            assert ask(routes, now_s, key_id="other") == "a"


Told = tuple[float, str, Result, float | None]


@given(
    told=st.lists(
        st.tuples(
            st.integers(0, 12).map(float),
            st.sampled_from(["one", "two"]),
            st.sampled_from([Result.FAILED, Result.RATE_LIMITED, Result.UNREACHABLE, Result.OK]),
            st.none() | st.integers(0, 400).map(float),
        ),
        max_size=30,
    ),
    key_id=st.sampled_from(["one", "two", "newcomer"]),
)
@example(told=[(0.0, "one", Result.RATE_LIMITED, 30.0)] * 3, key_id="one")
@example(told=[(0.0, "one", Result.UNREACHABLE, None)] * 9, key_id="newcomer")
@example(told=[(5.0, "one", Result.UNREACHABLE, None)] * 12 + [(0.0, "two", Result.RATE_LIMITED, 2.0)], key_id="two")
def test_who_waits_as_long_as_it_is_told_finds_one_and_nobody_does_before(told: list[Told], key_id: str) -> None:
    routes, now_s = balancer(at("a"), at("b"), at("c", priority=1)), 0.0
    for step_s, asking, result, pause_s in told:
        now_s += step_s
        if routes.has_another(now_s, asking, frozenset()):
            ask(routes, now_s, result, pause_s, key_id=asking)
    wait_s = routes.available_in_s(now_s, key_id)
    assert routes.has_another(now_s, key_id, frozenset()) == (wait_s == 0)
    assert not routes.all_paused(now_s, key_id) or wait_s > 0
    if wait_s:
        assert not routes.has_another(now_s + wait_s - 0.001, key_id, frozenset())
    assert routes.has_another(now_s + wait_s, key_id, frozenset())


def test_where_only_room_is_missing_there_is_nothing_to_wait_for() -> None:
    routes = balancer(at("a", max_in_flight=1))
    first = routes.begin(0, KEY)
    assert first is not None
    assert routes.begin(0, KEY) is None
    assert (routes.available_in_s(0, KEY), routes.all_paused(0, KEY)) == (0, False)
    routes.end(first, 0, Result.OK)
    assert routes.has_another(0, KEY, frozenset())


def test_a_wait_is_over_for_one_request_at_a_time_while_a_deployment_is_tried_again() -> None:
    routes = balancer(at("a"))
    for _ in range(POLICY.consecutive):
        ask(routes, 0, Result.UNREACHABLE)
    assert routes.available_in_s(0, KEY) == POLICY.open_s
    probe = routes.begin(POLICY.open_s, KEY)
    assert probe is not None
    # Nobody knows when the probe ends.
    assert routes.available_in_s(POLICY.open_s, KEY) == 0
    assert routes.begin(POLICY.open_s, KEY) is None
    routes.end(probe, POLICY.open_s, Result.UNREACHABLE)
    assert routes.available_in_s(POLICY.open_s, KEY) == 2 * POLICY.open_s


def test_a_budget_saves_up_no_more_than_its_limit_and_a_clock_that_stands_gives_nothing() -> None:
    budget = RetryBudget(share=0.5, floor_per_s=1, limit=2)
    assert [budget.take(100) for _ in range(3)] == [True, True, False]
    budget.request()
    assert not budget.take(100)
    budget.request()
    assert [budget.take(100), budget.take(100)] == [True, False]
    # A moment that was passed before brings nothing, and takes nothing back.
    assert not budget.take(99)
    assert [budget.take(101), budget.take(101)] == [True, False]
    assert [budget.take(1_000) for _ in range(3)] == [True, True, False]


class Requests(RuleBasedStateMachine):
    """Any order of beginnings, ends and waits, beside a plain account of what is in flight."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.routes = balancer(at("a", weight=3, max_in_flight=4), at("b", max_in_flight=2), at("c", priority=1))
        self.under_way: list[Attempt] = []
        self.written = dict.fromkeys("abc", ("", 0.0))

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(key_id=st.sampled_from(["one", "two", "three"]), tried=st.frozensets(st.integers(0, 2)))
    def begin(self, key_id: str, tried: frozenset[int]) -> None:
        possible = self.routes.has_another(self.now_s, key_id, tried)
        main = [one for one in self.routes.targets[:2] if one.index not in tried]
        better = [one for one in main if one.available(self.now_s, key_id)]
        attempt = self.routes.begin(self.now_s, key_id, tried)
        assert (attempt is not None) == possible
        if attempt is not None:
            assert attempt.target.index not in tried
            assert attempt.target.deployment.priority == 0 or not better
            written, until_s = self.written[chosen(attempt)]
            assert written != key_id or self.now_s >= until_s
            self.under_way.append(attempt)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), result=st.sampled_from(Result), pause_s=st.none() | st.floats(0, 1000))
    def end(self, data: st.DataObject, result: Result, pause_s: float | None) -> None:
        attempt = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.routes.end(attempt, self.now_s, result, pause_s)
        if pause_s is not None:
            until_s = self.now_s + min(pause_s, POLICY.pause_limit_s)
            before, before_s = self.written[chosen(attempt)]
            same = before == attempt.key_id
            self.written[chosen(attempt)] = (attempt.key_id, max(until_s, before_s) if same else until_s)

    @invariant()
    def what_is_in_flight_is_known_and_bounded(self) -> None:
        counts = Counter(chosen(attempt) for attempt in self.under_way)
        for target in self.routes.targets:
            assert target.in_flight == counts[target.deployment.provider]
            assert target.in_flight <= (target.deployment.max_in_flight or 10**9)

    @invariant()
    def no_more_probes_than_allowed(self) -> None:
        for target in self.routes.targets:
            for breaker in (target.breaker._shared, target.breaker._own):
                if breaker.state(self.now_s) is State.HALF_OPEN:
                    assert 0 <= breaker._probing <= POLICY.probes

    @invariant()
    def everything_comes_back_in_the_end(self) -> None:
        if not self.under_way:
            late_s = self.now_s + POLICY.pause_limit_s + POLICY.open_limit_s
            for key_id in ("one", "two", "three"):
                assert all(target.available(late_s, key_id) for target in self.routes.targets)


TestRequests = pytest.mark.filterwarnings("default")(Requests.TestCase)
