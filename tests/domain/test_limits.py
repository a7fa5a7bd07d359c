from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.limits import (
    EVERY_MODEL,
    Limits,
    QuotaUsage,
    RateUsage,
    may_use,
    rate_limit_headers,
    rate_usage,
    whole_seconds,
)

NOW_US = 1_764_000_000_000_000
units = st.integers(0, 2**53 - 1)


@pytest.mark.parametrize(
    ("limit", "posted", "reserved", "remaining"),
    [
        (None, 0, 0, None),
        (None, 10, 5, None),
        (10, 0, 0, 10),
        (10, 3, 2, 5),
        (10, 5, 5, 0),
        (10, 15, 0, 0),
        (10, 8, 5, 0),
        (0, 0, 0, 0),
        (-5, 0, 0, 0),
    ],
)
def test_what_remains_is_what_can_still_be_reserved(
    limit: int | None, posted: int, reserved: int, remaining: int | None
) -> None:
    assert QuotaUsage(limit, posted, reserved).remaining == remaining


@given(units, units, units)
def test_limit_posted_reserved_and_remaining_add_up(limit: int, posted: int, reserved: int) -> None:
    remaining = QuotaUsage(limit, posted, reserved).remaining
    assert remaining is not None
    assert remaining >= 0
    assert posted + reserved + remaining == max(limit, posted + reserved)


def test_a_key_has_no_limits_unless_told() -> None:
    limits = Limits()
    assert limits.quota_units is None
    assert limits.models == EVERY_MODEL
    assert may_use(limits.models, "acme/image-1")


@pytest.mark.parametrize(
    ("models", "model_id", "allowed"),
    [
        (("*",), "acme/image-1", True),
        (("*",), "image-1", True),
        ((), "acme/image-1", False),
        (("",), "acme/image-1", False),
        (("acme/image-1",), "acme/image-1", True),
        (("acme/image-1",), "acme/image-10", False),
        (("acme/image-10",), "acme/image-1", False),
        (("acme/image-1",), "ACME/image-1", False),
        (("acme/*",), "acme/image-1", True),
        (("acme/*",), "acme/fast/image-1", True),
        (("acme/fast/*",), "acme/fast/image-1", True),
        (("acme/fast/*",), "acme/image-1", False),
        (("acme/*",), "acme", False),
        (("acme/*",), "acmes/image-1", False),
        (("acme/*",), "other/acme/image-1", False),
        (("acme*",), "acme/image-1", False),
        (("acme/image-*",), "acme/image-1", False),
        (("*/image-1",), "acme/image-1", False),
        (("acme/?mage-1",), "acme/image-1", False),
        (("acme/.*",), "acme/image-1", False),
        (("/*",), "acme/image-1", False),
        (("other/x", "acme/*"), "acme/image-1", True),
        (("other/x", "other/*"), "acme/image-1", False),
    ],
)
def test_a_key_may_use_exact_ids_what_stands_behind_a_prefix_or_everything(
    models: tuple[str, ...], model_id: str, allowed: bool
) -> None:
    assert may_use(models, model_id) is allowed


@given(st.lists(st.sampled_from(["a", "a/b", "a/*", "b/*", "*", "b/c"])), st.sampled_from(["a", "a/b", "a/c", "b/c"]))
def test_one_more_pattern_never_takes_a_model_away(models: list[str], model_id: str) -> None:
    assert may_use(tuple(models), model_id) == any(may_use((pattern,), model_id) for pattern in models)


@pytest.mark.parametrize(
    ("limit", "due_us", "burst_us", "remaining", "reset_us"),
    [
        (60, 0, 60_000_000, 60, 0),
        (60, NOW_US, 60_000_000, 60, 0),
        (60, NOW_US + 1_000_000, 60_000_000, 59, 1_000_000),
        (60, NOW_US + 1, 60_000_000, 59, 1),
        (60, NOW_US + 60_000_000, 60_000_000, 0, 60_000_000),
        (60, NOW_US + 90_000_000, 60_000_000, 0, 90_000_000),
        (1, 0, 1_000_000, 1, 0),
        (7, 0, 60_000_000, 6, 0),
    ],
)
def test_a_pace_by_its_next_due_moment(limit: int, due_us: int, burst_us: int, remaining: int, reset_us: int) -> None:
    assert rate_usage(limit, due_us, now_us=NOW_US, burst_us=burst_us) == RateUsage(limit, remaining, reset_us)


@pytest.mark.parametrize(
    ("reset_us", "told"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (999_000, "999ms"),
        (1_000_000, "1s"),
        (8_640_000, "8.64s"),
        (60_000_000, "1m0s"),
        (90_500_000, "1m30.5s"),
    ],
)
def test_the_headers_are_those_that_openai_sends(reset_us: int, told: str) -> None:
    assert rate_limit_headers([("images", RateUsage(60, 3, reset_us))]) == {
        "x-ratelimit-limit-images": "60",
        "x-ratelimit-remaining-images": "3",
        "x-ratelimit-reset-images": told,
    }


@given(st.integers(1, 2**53))
def test_a_wait_is_rounded_up(wait_us: int) -> None:
    seconds = whole_seconds(wait_us)
    assert seconds >= 1
    assert seconds * 1_000_000 >= wait_us
    assert seconds == 1 or (seconds - 1) * 1_000_000 < wait_us
