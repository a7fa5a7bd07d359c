from __future__ import annotations

import struct
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.domain.billing.pricing import Quote, Tier, TierCharge
from proxy.domain.billing.settlement import Delivery, Reservation, Served, Settlement, settle
from proxy.domain.errors import InvalidApiKey
from proxy.domain.limits import KeyRecord, Limits, QuotaUsage, TeamRecord
from proxy.domain.requests.idempotency import KeptAnswer
from proxy.metering.redis_store import facts
from proxy.metering.redis_store.facts import DAY_MS, SIZES_KEPT, StoreTime

DAY = 20_500
"""The day of ``NOW``, 2026-02-16: the first of no month."""

NOW = StoreTime(now_us=DAY * DAY_MS * 1_000 + 1, burst_us=60_000_000)
KEY_ID = "acme_0123456789"
FIRST_OF_MONTH = DAY - 15


def record(fields: dict[str, Any] | None = None, at: StoreTime = NOW, **more: Any) -> KeyRecord:
    return facts.key_from_fields(KEY_ID, {name: str(value) for name, value in ((fields or {}) | more).items()}, at)


# --- Records ----------------------------------------------------------------------------------------------------------


def test_a_record_with_nothing_in_it_has_no_limit_and_has_used_nothing() -> None:
    empty = record()
    assert (empty.id, empty.team, empty.name, empty.limits) == (KEY_ID, "acme", "", Limits())
    assert empty.quota == QuotaUsage(None, 0, 0)
    assert empty.rates == {}
    assert (empty.held, empty.granted_units, empty.overage_units, empty.images, empty.created_ms) == (0, 0, 0, 0, 0)
    assert (empty.expires_ms, empty.revoked_ms) == (None, None)


def test_each_field_of_a_record_has_its_place() -> None:
    numbers = {"reserved": 1, "posted": 2, "overage": 3, "images": 4, "held": 5, "granted": 6}
    times = {"created_ms": 7, "expires_ms": 8, "revoked_ms": 9}
    limits = {"quota_units": 10, "quota_units_per_day": 11, "quota_units_per_month": 12, "concurrent_requests": 13}
    found = record({**numbers, **times, **limits, "name": "nightly", "models": "a\nb/*"})
    assert (found.name, found.created_ms, found.expires_ms, found.revoked_ms) == ("nightly", 7, 8, 9)
    assert (found.overage_units, found.images, found.held, found.granted_units) == (3, 4, 5, 6)
    assert found.limits == Limits(10, 11, 12, concurrent_requests=13, models=("a", "b/*"))
    assert found.quota == QuotaUsage(16, 2, 1)


def test_a_grant_raises_the_total_and_no_window_and_makes_no_limit_where_there_is_none() -> None:
    granted = record(quota_units=100, quota_units_per_day=50, granted=-30)
    assert [granted.quotas[name].limit for name in ("quota_units", "quota_units_per_day")] == [70, 50]
    assert record(granted=30).quota.limit is None


def test_a_team_is_read_by_the_same_rule() -> None:
    team = facts.team_from_fields("acme", {"posted": "5", "revoked_ms": "9"}, NOW)
    assert isinstance(team, TeamRecord)
    assert (team.id, team.team, team.quota.posted, team.revoked_ms) == ("acme", "acme", 5, 9)


@pytest.mark.parametrize(
    ("field", "name", "last_admission", "counts"),
    [
        ("day", "quota_units_per_day", DAY, True),
        ("day", "quota_units_per_day", DAY - 1, False),
        ("day", "quota_units_per_day", DAY + 1, False),
        ("month", "quota_units_per_month", DAY, True),
        ("month", "quota_units_per_month", FIRST_OF_MONTH, True),
        ("month", "quota_units_per_month", FIRST_OF_MONTH - 1, False),
        ("month", "quota_units_per_month", DAY - 365, False),
    ],
)
def test_only_the_window_of_now_has_anything_used(field: str, name: str, last_admission: int, *, counts: bool) -> None:
    found = record({field: last_admission, f"{field}_posted": 40, f"{field}_reserved": 4, name: 100})
    window = "2026-02-16" if field == "day" else "2026-02"
    assert found.quotas[name] == QuotaUsage(100, 40 if counts else 0, 4 if counts else 0, window)


def test_a_window_begins_with_the_first_microsecond_of_its_day() -> None:
    fields = {"day": DAY, "day_posted": 40}
    last, first = ((DAY + 1) * DAY_MS * 1_000 + us for us in (-1, 0))
    used = [record(fields, replace(NOW, now_us=at)).quotas["quota_units_per_day"] for at in (last, first)]
    assert [(one.posted, one.window) for one in used] == [(40, "2026-02-16"), (0, "2026-02-17")]


def test_a_rate_is_reported_where_there_is_a_limit_by_the_time_and_burst_of_the_store() -> None:
    late = record(requests_per_minute=60, requests_due_us=NOW.now_us + 3_000_000, images_due_us=5)
    assert set(late.rates) == {"requests"}
    assert late.rates["requests"] == (60, 57, 3_000_000)
    small = record({"requests_per_minute": 60}, replace(NOW, burst_us=5_000_000))
    assert small.rates["requests"] == (60, 5, 0)


# --- Hashes -----------------------------------------------------------------------------------------------------------


def test_counters_are_fields_and_the_packed_limits_are_left_out() -> None:
    counters = struct.pack(">13q", *range(12), -13)
    found = facts.fields_from_pairs([b"name", "é".encode(), b"counters", counters, b"limits", b"\xff\xfe"])
    assert found == {"name": "é", **{name: str(at) for at, name in enumerate(facts.COUNTERS[:12])}} | {
        "images_due_us": "-13"
    }


def test_a_list_that_is_no_pairs_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        facts.fields_from_pairs([b"name", b"x", b"counters"])


@pytest.mark.parametrize(
    ("verdict", "words"), [(b"unknown", "not known"), (b"revoked", "revoked"), (b"expired", "expired"), (b"ok", None)]
)
def test_each_refusal_of_a_key_says_why(verdict: bytes, words: str | None) -> None:
    error = facts.invalid_key(verdict)
    assert (error is None) == (words is None)
    if words is not None:
        assert isinstance(error, InvalidApiKey)
        assert words in error.message


# --- The ledger -------------------------------------------------------------------------------------------------------

RESERVATION = Reservation(
    *("req_1", "acme", KEY_ID, "/v1/images/generations", "acme/image-1"),
    Quote(3, 5_000, 15_000, Tier.STANDARD),
    7,
    None,
)


def told(settlement: Settlement) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads(facts.settlement_facts(settlement))
    return content


def test_the_facts_of_a_request_are_what_was_asked_and_who_answered() -> None:
    served = Served(provider="acme", status=200, ms=1_234)
    assert told(settle(RESERVATION, Delivery(images=2, served=served))) == {
        "endpoint": "/v1/images/generations",
        "model": "acme/image-1",
        "provider": "acme",
        "provider_status": 200,
        "provider_ms": 1_234,
        "requested_images": 3,
        "tier": "standard",
        "unit_price": 5_000,
        "reserved": 15_000,
        "admitted_ms": 7,
    }


@pytest.mark.parametrize("attempts", [0, 1, 2])
def test_attempts_are_told_where_they_were_not_one(attempts: int) -> None:
    found = told(settle(RESERVATION, Delivery(served=Served(attempts=attempts))))
    assert found.get("attempts") == (None if attempts == 1 else attempts)


@pytest.mark.parametrize(
    ("sizes", "images", "kept", "omitted"),
    [
        ((), 2, None, None),
        ((None, None), 2, None, None),
        (((1, 2), None), 2, ["1x2", None], None),
        (((1, 2),), 3, ["1x2"], 2),
        (((1, 2),) * SIZES_KEPT, SIZES_KEPT, ["1x2"] * SIZES_KEPT, None),
        (((1, 2),) * (SIZES_KEPT + 5), SIZES_KEPT + 5, ["1x2"] * SIZES_KEPT, 5),
    ],
)
def test_the_first_sizes_are_kept_and_the_others_counted(
    sizes: tuple[Any, ...], images: int, kept: list[str | None] | None, omitted: int | None
) -> None:
    found = told(settle(RESERVATION, Delivery(images=images, sizes=sizes)))
    assert (found.get("sizes"), found.get("sizes_omitted")) == (kept, omitted)


def test_what_each_tier_was_charged_is_told_and_the_providers_usage_is_as_it_came() -> None:
    settlement = settle(RESERVATION, Delivery(images=1, provider_usage=b'{"tokens":1e3, "b":2}'))
    charged = (TierCharge(Tier.STANDARD, 1, 5_000),)
    text = facts.settlement_facts(replace(settlement, charged_by=charged))
    assert b'"provider_usage":{"tokens":1e3, "b":2}' in text
    assert orjson.loads(text)["charged_by"] == {"standard": {"images": 1, "unit_price": 5_000}}
    assert "charged_by" not in told(settlement)


def test_an_entry_is_its_figures_and_its_facts() -> None:
    fields = {"kind": "request", "key": KEY_ID, "charged": "5", "images": "1", "overage": "0", "facts": '{"tier":"x"}'}
    entry = facts.entry_from_stream("acme", "1700000000000-3", fields)
    assert (entry.id, entry.at_ms, entry.kind, entry.team) == (
        *("acme_1700000000000-3", 1_700_000_000_000, "request", "acme"),
    )
    assert entry.facts == {"key": KEY_ID, "charged": 5, "images": 1, "overage": 0, "tier": "x"}
    assert facts.entry_from_stream("acme", "1-0", {"kind": "grant", "quota_units": "-5"}).facts == {"quota_units": -5}


@pytest.mark.parametrize("name", ["corrects", "refunds"])
def test_an_entry_names_another_by_the_id_that_the_api_knows(name: str) -> None:
    entry = facts.entry_from_stream("acme", "2-0", {"kind": "late", name: "1-0"})
    assert entry.facts == {name: "acme_1-0"}


@given(status=st.integers(100, 599), body=st.binary())
@example(status=200, body=b" 1 2 ")
@example(status=200, body=b"")
def test_an_answer_is_kept_as_it_was(status: int, body: bytes) -> None:
    answer = KeptAnswer(status, body)
    assert facts.read_kept_answer(facts.kept_answer(answer)) == answer
    assert facts.kept_answer(None) == b"" != facts.kept_answer(answer)


@given(st.integers(0, 250_000_000_000_000))
@example(DAY * DAY_MS)
@example(DAY * DAY_MS - 1)
def test_a_day_is_that_of_the_calendar(at_ms: int) -> None:
    assert facts.utc_day(at_ms) == datetime.fromtimestamp(at_ms // 1_000, UTC).date().isoformat()
