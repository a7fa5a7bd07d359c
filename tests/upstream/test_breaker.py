from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.breaker import Breaker, BreakerPolicy, FairBreaker, Probes, Result, State, Window

POLICY = BreakerPolicy(consecutive=3, least_requests=10, open_s=5, open_limit_s=20, window_s=30)


def fail(breaker: Breaker, now_s: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.end(now_s, failed=True, probe=breaker.begin(now_s))


def succeed(breaker: Breaker, now_s: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.end(now_s, failed=False, probe=breaker.begin(now_s))


def test_failures_on_end_open_it() -> None:
    breaker = Breaker(POLICY)
    fail(breaker, 0, 2)
    succeed(breaker, 0)
    fail(breaker, 0, 2)
    assert breaker.allows(0)
    fail(breaker, 0)
    assert breaker.state(0) is State.OPEN
    assert not breaker.allows(4.9)
    assert breaker.state(5) is State.HALF_OPEN


def test_a_rate_of_failures_opens_it_within_the_window_only() -> None:
    breaker, forgetful = Breaker(POLICY), Breaker(POLICY)
    for _ in range(5):
        succeed(breaker, 0)
        fail(breaker, 0)
    assert breaker.state(0) is State.OPEN
    for step in range(20):
        succeed(forgetful, step * 10)
        fail(forgetful, step * 10)
    assert forgetful.state(190) is State.CLOSED


def test_half_open_lets_one_probe_through_at_a_time_and_two_close_it() -> None:
    breaker = Breaker(POLICY)
    fail(breaker, 0, 3)
    assert breaker.begin(5)
    assert not breaker.allows(5)
    breaker.end(6, failed=False, probe=True)
    assert breaker.state(6) is State.HALF_OPEN
    succeed(breaker, 6)
    assert breaker.state(6) is State.CLOSED


def test_a_probe_that_fails_opens_it_for_twice_as_long_within_bounds() -> None:
    breaker, now_s = Breaker(POLICY), 0.0
    fail(breaker, now_s, 3)
    waits = []
    for _ in range(4):
        waits.append(breaker.opens_again_s(now_s))
        now_s += waits[-1]
        fail(breaker, now_s)
    assert waits == [5, 10, 20, 20]


def test_a_probe_whose_client_left_gives_its_place_back() -> None:
    breaker = Breaker(POLICY)
    fail(breaker, 0, 3)
    breaker.end(5, failed=None, probe=breaker.begin(5))
    assert breaker.allows(5)


def test_what_was_sent_before_it_opened_does_not_judge_a_probe() -> None:
    breaker = Breaker(POLICY)
    old = breaker.begin(0)
    fail(breaker, 0, 3)
    probe = breaker.begin(5)
    assert (old, probe) == (False, True)
    breaker.end(6, failed=True, probe=old)
    assert breaker.state(6) is State.HALF_OPEN


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=50))
def test_the_window_is_the_sum_of_its_last_slices(steps: list[tuple[float, bool]]) -> None:
    window, now_s, seen = Window(30), 0.0, []
    for step_s, failed in steps:
        now_s += step_s
        window.add(now_s, failed=failed)
        seen.append((int(now_s / 3), failed))
        recent = [was_failure for place, was_failure in seen if place > int(now_s / 3) - 10]
        assert window.totals(now_s) == (len(recent), sum(recent))


class Asked:
    """A breaker that is asked as a gateway asks it: a request that it does not let through is not sent."""

    def __init__(self) -> None:
        self.breaker = FairBreaker(POLICY)
        self.sent = 0

    def ask(self, now_s: float, key_id: str, result: Result) -> bool:
        """Whether it was sent."""
        if not self.breaker.allows(now_s, key_id):
            return False
        self.breaker.end(now_s, key_id, result, self.breaker.begin(now_s, key_id))
        self.sent += 1
        return True


NO_FAULT_OF_A_CLIENTS = [Result.OK, Result.FAILED, Result.RATE_LIMITED, Result.NEITHER]
Steps = list[tuple[float, bool, Result]]
steps_of_two = st.lists(
    st.tuples(st.floats(0, 20), st.booleans(), st.sampled_from(NO_FAULT_OF_A_CLIENTS)), max_size=200
)


@given(steps_of_two)
def test_however_one_keys_requests_end_others_whose_requests_succeed_are_let_through(steps: Steps) -> None:
    asked, now_s = Asked(), 0.0
    for step_s, is_others, result in steps:
        now_s += step_s
        assert asked.breaker.allows(now_s, "other")
        assert asked.breaker.state(now_s, "other") is State.CLOSED
        if is_others:
            assert asked.ask(now_s, "other", Result.OK)
        else:
            asked.ask(now_s, "poisoner", result)


@given(steps_of_two)
def test_with_one_key_it_is_as_any_breaker(steps: Steps) -> None:
    fair, plain, now_s = FairBreaker(POLICY), Breaker(POLICY), 0.0
    under_way: list[tuple[Probes, bool]] = []
    for step_s, begins, result in steps:
        now_s += step_s
        assert fair.allows(now_s, "a") == plain.allows(now_s)
        assert fair.state(now_s, "a") == plain.state(now_s)
        assert fair.opens_again_s(now_s, "a") == plain.opens_again_s(now_s)
        if begins and plain.allows(now_s):
            under_way.append((fair.begin(now_s, "a"), plain.begin(now_s)))
        elif not begins and under_way:
            probes, probe = under_way.pop(0)
            fair.end(now_s, "a", result, probes)
            plain.end(now_s, failed={Result.OK: False, Result.FAILED: True}.get(result), probe=probe)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 4), st.sampled_from(NO_FAULT_OF_A_CLIENTS)), max_size=200))
def test_it_opens_for_all_only_where_two_keys_have_failed(steps: list[tuple[float, int, Result]]) -> None:
    """With three failures on end, or five of ten: the key with the most has one more than all others, at most."""
    asked, now_s, failures = Asked(), 0.0, Counter[str]()
    for step_s, key, result in steps:
        now_s += step_s
        if asked.ask(now_s, str(key), result) and result is Result.FAILED:
            failures[str(key)] += 1
        if not asked.breaker.allows(now_s, "newcomer"):
            assert len(failures) > 1
            return


@pytest.mark.parametrize("keys", [["a", "b", "c"], ["a", "b", "a"], ["a", "a", "a", "b", "c"]])
def test_where_several_keys_fail_it_opens_for_all(keys: list[str]) -> None:
    asked = Asked()
    assert all(asked.ask(0, key_id, Result.FAILED) for key_id in keys)
    assert not asked.breaker.allows(0, "newcomer")
    assert asked.breaker.state(5, "newcomer") is State.HALF_OPEN


def test_what_no_client_brings_about_counts_always() -> None:
    asked = Asked()
    assert [asked.ask(0, "a", Result.UNREACHABLE) for _ in range(4)] == [True] * 3 + [False]
    assert not asked.breaker.allows(0, "newcomer")
    assert not asked.ask(4, "newcomer", Result.OK)
    assert asked.ask(5, "newcomer", Result.UNREACHABLE)
    assert asked.breaker.opens_again_s(5, "a") == 10


def test_an_account_without_credit_opens_it_at_once_for_all_and_for_long() -> None:
    asked = Asked()
    assert asked.ask(0, "a", Result.OK)
    assert asked.ask(0, "a", Result.OUT_OF_CREDIT)
    for key_id in ("a", "newcomer"):
        assert not asked.ask(19.9, key_id, Result.OK)
    assert asked.breaker.opens_again_s(0, "newcomer") == POLICY.open_limit_s
    # A probe then, and again after as long where nobody has paid.
    assert asked.ask(20, "b", Result.OUT_OF_CREDIT)
    assert not asked.ask(39.9, "a", Result.OK)
    assert asked.ask(40, "a", Result.OK)
    assert asked.ask(40, "b", Result.OK)
    assert asked.breaker.state(40, "newcomer") is State.CLOSED


def test_an_answer_of_before_it_opened_does_not_keep_it_open() -> None:
    breaker = FairBreaker(POLICY)
    first, second = breaker.begin(0, "a"), breaker.begin(0, "b")
    breaker.end(0, "a", Result.OUT_OF_CREDIT, first)
    breaker.end(19, "b", Result.OUT_OF_CREDIT, second)
    assert breaker.state(20, "c") is State.HALF_OPEN


def test_a_key_that_failed_too_often_is_kept_out_alone() -> None:
    asked = Asked()
    for now_s in range(300):
        asked.ask(now_s, "poisoner", Result.FAILED)
        assert asked.ask(now_s, "other", Result.OK)
    # Three, and then a probe after 5, 10, and each further 20 seconds.
    assert asked.sent - 300 == 3 + 1 + 1 + (300 - 1 - 17) // 20


def test_a_probe_that_fails_again_leaves_the_next_to_another_key() -> None:
    asked = Asked()
    for key_id in ("a", "b", "poisoner"):
        asked.ask(0, key_id, Result.FAILED)
    assert asked.ask(5, "poisoner", Result.FAILED)
    assert not asked.breaker.allows(5, "poisoner")
    assert asked.breaker.opens_again_s(5, "poisoner") == 10
    # The others need not wait for it.
    assert asked.ask(5, "a", Result.OK)
    assert asked.ask(5, "b", Result.OK)
    assert asked.breaker.state(5, "a") is State.CLOSED
    assert not asked.breaker.allows(14.9, "poisoner")


def test_a_probe_of_another_key_that_fails_opens_it_for_all() -> None:
    asked = Asked()
    for key_id in ("a", "b", "a"):
        asked.ask(0, key_id, Result.FAILED)
    assert asked.ask(5, "a", Result.FAILED)
    assert asked.ask(5, "b", Result.FAILED)
    assert (asked.breaker.opens_again_s(5, "b"), asked.breaker.opens_again_s(5, "newcomer")) == (10, 10)


def test_successes_between_its_failures_do_not_hide_those_of_others() -> None:
    """The poisoner's are half failures, the others' as well, and more than ten in all."""
    asked = Asked()
    for number in range(12):
        for result in (Result.FAILED, Result.OK, Result.FAILED, Result.OK):
            asked.ask(number, "poisoner", result)
        for result in (Result.FAILED, Result.OK):
            asked.ask(number, str(number % 3), result)
    assert not asked.breaker.allows(11, "newcomer")


def test_a_failure_of_before_it_opened_for_one_key_does_not_free_another() -> None:
    breaker = FairBreaker(POLICY)
    old = breaker.begin(0, "b")
    for key_id in ("a", "b", "a"):
        breaker.end(0, key_id, Result.FAILED, breaker.begin(0, key_id))
    assert not breaker.allows(0, "a")
    breaker.end(5, "b", Result.FAILED, old)
    probes = breaker.begin(5, "a")
    assert probes.shared
    breaker.end(6, "a", Result.FAILED, probes)
    # It is still known who failed last.
    assert not breaker.allows(6, "a")
    assert breaker.allows(6, "b")


def test_a_success_that_does_not_count_ends_a_run_all_the_same() -> None:
    asked = Asked()
    for key_id, result in [("a", Result.FAILED), ("a", Result.FAILED), ("a", Result.OK)]:
        asked.ask(0, key_id, result)
    assert all(asked.ask(0, key_id, Result.FAILED) for key_id in ("b", "c"))
    assert asked.breaker.allows(0, "newcomer")


def test_a_keys_own_breaker_knows_what_went_well_before() -> None:
    asked = Asked()
    results = [Result.OK] * 30 + [Result.FAILED, Result.FAILED, Result.OK] * 5
    assert all(asked.ask(0, "a", result) for result in results)


def test_a_probe_of_a_breaker_that_has_gone_does_not_judge_the_next() -> None:
    asked = Asked()
    for _ in range(3):
        asked.ask(0, "a", Result.FAILED)
    old = asked.breaker.begin(5, "a")
    assert old.own is not None
    for key_id, result in [("b", Result.FAILED), ("b", Result.OK), *[("a", Result.FAILED)] * 3]:
        assert asked.ask(5, key_id, result)
    probes = asked.breaker.begin(10, "a")
    asked.breaker.end(10, "a", Result.FAILED, old)
    assert asked.breaker.state(10, "a") is State.HALF_OPEN
    for _ in range(2):
        asked.breaker.end(10, "a", Result.OK, probes)
        probes = asked.breaker.begin(10, "a")
    assert asked.breaker.state(10, "a") is State.CLOSED
