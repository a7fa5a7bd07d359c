from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.alerts import (
    DAY_MS,
    credit_alert,
    expiry_alert,
    quota_alerts,
    soft_limit_alerts,
)
from proxy.domain.limits import KeyRecord, Limits, QuotaUsage, TeamRecord

AT = (50, 80, 100)


def key(
    posted: int, *, total: int | None = None, day: int | None = None, expires_ms: int | None = None, reserved: int = 0
) -> KeyRecord:
    quotas = {
        "quota_units": QuotaUsage(total, posted, reserved),
        "quota_units_per_day": QuotaUsage(day, posted, reserved, "2026-11-26"),
        "quota_units_per_month": QuotaUsage(None, posted, reserved, "2026-11"),
    }
    given: dict[str, int] = {"held": 0, "granted_units": 0, "overage_units": 0, "images": 0, "created_ms": 0}
    return KeyRecord("acme_k", "acme", "nightly", Limits(), quotas, {}, **given, expires_ms=expires_ms)


def told(record: KeyRecord, *, refused: bool = False) -> list[tuple[str, int, bool]]:
    return [
        (alert.facts["limit"], alert.facts["percent"], alert.facts["refused"])
        for alert in quota_alerts(record, AT, refused=refused)
    ]


@pytest.mark.parametrize(
    ("posted", "percent"),
    [(0, None), (499, None), (500, 50), (799, 50), (800, 80), (999, 80), (1_000, 100), (1_500, 100)],
)
def test_the_greatest_share_that_is_passed_is_told(posted: int, percent: int | None) -> None:
    assert told(key(posted, total=1_000)) == ([] if percent is None else [("quota_units", percent, False)])


def test_each_quota_is_told_of_alone_and_what_is_reserved_is_not_used_yet() -> None:
    assert told(key(800, total=1_000, day=1_600, reserved=900)) == [
        ("quota_units", 80, False),
        ("quota_units_per_day", 50, False),
    ]
    assert told(key(10**9)) == []


def test_a_refusal_means_that_the_tightest_quota_is_used_up() -> None:
    assert told(key(830, total=1_000, day=5_000), refused=True) == [("quota_units", 100, True)]
    assert told(key(830), refused=True) == []
    (alert,) = quota_alerts(key(830, total=1_000), AT, refused=True)
    assert "A request was refused: 170 are left." in alert.text


def test_who_is_told_of_a_share_is_not_told_of_those_below_after_that() -> None:
    (half,) = quota_alerts(key(500, total=1_000), AT)
    (all_of_it,) = quota_alerts(key(1_000, total=1_000), AT)
    assert all_of_it.below[0] == half.name
    assert all_of_it.name not in all_of_it.below
    assert len(all_of_it.below) == 2
    # A grant makes it another limit, of which somebody is told anew.
    (raised,) = quota_alerts(key(1_000, total=2_000), AT)
    assert raised.name not in (half.name, *all_of_it.below)


@given(st.integers(0, 2**53), st.integers(0, 2**53), st.lists(st.integers(1, 100), min_size=1))
def test_a_share_is_told_exactly_where_it_is_passed(posted: int, limit: int, at: list[int]) -> None:
    found = [alert.facts["percent"] for alert in quota_alerts(key(posted, total=limit), at)]
    passed = [share for share in at if posted * 100 >= share * max(1, limit)]
    assert found == ([max(passed)] if passed else [])


def test_a_soft_limit_is_told_of_whatever_the_quota_is() -> None:
    record = key(800, total=10**9)
    team = TeamRecord(**{name: getattr(record, name) for name in KeyRecord.__dataclass_fields__} | {"id": "acme"})
    (alert,) = soft_limit_alerts(team, {"quota_units_per_month": 1_000}, AT)
    assert (alert.kind, alert.facts["percent"], alert.facts["quota_units"]) == ("soft_limit", 80, 1_000)
    assert "The team acme" in alert.text
    assert list(soft_limit_alerts(team, {"quota_units_per_month": 1_601}, AT)) == []


def test_a_key_that_expires_soon_is_told_of_until_it_has() -> None:
    now = 1_000 * DAY_MS
    soon = expiry_alert(key(0, expires_ms=now + 2 * DAY_MS + 3_600_000), now_ms=now, days=7)
    assert soon is not None
    assert "expires in 2 days and 1 hours" in soon.text
    for expires_ms in (None, now, now - 1, now + 7 * DAY_MS + 1):
        assert expiry_alert(key(0, expires_ms=expires_ms), now_ms=now, days=7) is None
    revoked = replace(key(0, expires_ms=now + DAY_MS), revoked_ms=5)
    assert expiry_alert(revoked, now_ms=now, days=7) is None
    later = expiry_alert(key(0, expires_ms=now + 3 * DAY_MS), now_ms=now, days=7)
    assert later is not None
    assert later.name != soon.name


def test_a_provider_out_of_credit_is_told_of_once_a_day() -> None:
    assert credit_alert("openai", "2026-11-26") == credit_alert("openai", "2026-11-26")
    assert credit_alert("openai", "2026-11-26").name != credit_alert("openai", "2026-11-27").name
