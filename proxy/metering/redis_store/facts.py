"""How a key's record and the ledger's entries stand in Redis."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import orjson

from proxy.domain.api_key import team_of
from proxy.domain.billing.settlement import LedgerEntry, Settlement
from proxy.domain.errors import InvalidApiKey
from proxy.domain.limits import (
    NUMBERS,
    RATES,
    KeyRecord,
    Limits,
    QuotaUsage,
    TeamRecord,
    UserLimits,
    UserUsage,
    rate_usage,
)
from proxy.domain.parsing.image_header import write_size
from proxy.domain.requests.idempotency import KeptAnswer
from proxy.metering.redis_store.user_counters import read_counters, read_limits_per_user

SIZES_KEPT = 100
"""In one ledger entry, for whoever looks: nothing is counted with them. ``sizes_omitted`` is how many more came."""

DAY_MS = 86_400_000
COUNTERS = (
    "reserved", "posted", "overage", "images", "held", "day", "day_reserved", "day_posted", "month", "month_reserved",
    "month_posted", "requests_due_us", "images_due_us",
)  # fmt: skip
"""What stands in the field of this name, in this order; see ``counters.lua``."""

WINDOW_COUNTERS = COUNTERS[5:11]

_counters = struct.Struct(f">{len(COUNTERS)}q")

DAY_LENGTH = len("YYYY-MM-DD")
MONTH_LENGTH = len("YYYY-MM")
COUNTED = frozenset({"images", "charged", "overage", "quota_units"})

_WHY_NOT = {
    b"unknown": "Incorrect API key provided: it is not known here.",
    b"revoked": "The API key has been revoked.",
    b"expired": "The API key has expired.",
}


def invalid_key(verdict: bytes) -> InvalidApiKey | None:
    """The error for a verdict of ``authenticate.lua``, None where it is no refusal."""
    why = _WHY_NOT.get(verdict)
    return InvalidApiKey(why) if why else None


Record = TypeVar("Record", KeyRecord, TeamRecord)


@dataclass(frozen=True, slots=True)
class StoreTime:
    """When records were read, by the store's clock, and how much of a rate limit may come at once; in microseconds."""

    now_us: int
    burst_us: int


def key_from_fields(key_id: str, fields: Mapping[str, str], at: StoreTime) -> KeyRecord:
    """A key's record out of its hash."""
    return _account(KeyRecord, key_id, team_of(key_id) or "", fields, at)


def team_from_fields(team: str, fields: Mapping[str, str], at: StoreTime) -> TeamRecord:
    """A team's record out of its hash."""
    return _account(TeamRecord, team, team, fields, at)


def _account(kind: type[Record], account_id: str, team: str, fields: Mapping[str, str], at: StoreTime) -> Record:
    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    numbers: dict[str, Any] = {name: number(name) for name in NUMBERS}
    limits = Limits(
        **numbers,
        models=tuple(fields.get("models", "*").split("\n")),
        limits_per_user=read_limits_per_user(fields.get("limits_per_user")),
    )
    granted_units = number("granted") or 0
    total = None if limits.quota_units is None else limits.quota_units + granted_units
    return kind(
        id=account_id,
        team=team,
        name=fields.get("name", ""),
        limits=limits,
        quotas={
            "quota_units": QuotaUsage(total, number("posted") or 0, number("reserved") or 0),
            **_windows(limits, number, at.now_us // 1_000),
        },
        rates={
            rate: rate_usage(limit, number(f"{rate}_due_us") or 0, now_us=at.now_us, burst_us=at.burst_us)
            for rate in RATES
            if (limit := number(f"{rate}_per_minute")) is not None
        },
        held=number("held") or 0,
        granted_units=granted_units,
        overage_units=number("overage") or 0,
        images=number("images") or 0,
        created_ms=number("created_ms") or 0,
        expires_ms=number("expires_ms"),
        revoked_ms=number("revoked_ms"),
    )


def _windows(limits: Limits, number: Callable[[str], int | None], now_ms: int) -> dict[str, QuotaUsage]:
    """The windows of now."""
    counts = {field: number(field) for field in WINDOW_COUNTERS}
    return windows(limits, counts, now_ms)


def windows(limits: Limits | UserLimits, counts: Mapping[str, int | None], now_ms: int) -> dict[str, QuotaUsage]:
    """The windows of now, of counters by their names. What counts in earlier ones has used nothing of them."""
    today = utc_day(now_ms)
    usage = {}
    for name, field, window in (
        ("quota_units_per_day", "day", today),
        ("quota_units_per_month", "month", today[:MONTH_LENGTH]),
    ):
        day = counts[field]
        is_now = day is not None and utc_day(day * DAY_MS)[: len(window)] == window
        posted, reserved = (counts[f"{field}_posted"] or 0, counts[f"{field}_reserved"] or 0) if is_now else (0, 0)
        usage[name] = QuotaUsage(getattr(limits, name), posted, reserved, window)
    return usage


def user_usage(user: str, limits: UserLimits, stored: bytes | None, at: StoreTime) -> UserUsage:
    """What an end user has used, out of what is stored of it."""
    counters = read_counters(stored, at.now_us // 1_000)
    per_minute, due_us = limits.images_per_minute, counters.images_due_us
    return UserUsage(
        user=user,
        limits=limits,
        quotas=windows(limits, asdict(counters), at.now_us // 1_000),
        images=None if per_minute is None else rate_usage(per_minute, due_us, now_us=at.now_us, burst_us=at.burst_us),
        held=counters.held,
    )


def fields_from_pairs(pairs: Sequence[bytes]) -> dict[str, str]:
    """A hash out of the flat list in which a script replies with it."""
    return texts(zip(pairs[::2], pairs[1::2], strict=True))


def texts(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """A hash as text: each of a record's counters as a field of its own, its limits as they were given."""
    found: dict[str, str] = {}
    for name, value in fields:
        if name == b"counters":
            counters = _counters.unpack(value)
            found.update(zip(COUNTERS, map(str, counters), strict=True))
        elif name != b"limits":
            found[name.decode()] = value.decode()
    return found


def settlement_facts(settlement: Settlement) -> bytes:
    """What the ledger keeps of a request beside the figures that are counted, as JSON."""
    reservation, delivery = settlement.reservation, settlement.delivery
    served = delivery.served
    quote = reservation.quote
    facts: dict[str, Any] = {
        "endpoint": reservation.endpoint,
        "model": reservation.model,
        "provider": served.provider,
        "provider_status": served.status,
        "provider_ms": served.ms,
        "requested_images": quote.images,
        "tier": quote.tier,
        "unit_price": quote.unit_price,
        "reserved": quote.units,
        "admitted_ms": reservation.admitted_ms,
    }
    facts |= reservation.person.facts()
    if reservation.per_user:
        facts["per_user"] = reservation.per_user
    if reservation.asked_model:
        facts["asked_model"] = reservation.asked_model
    if quote.rule:
        facts["price_rule"] = quote.rule
    if settlement.basis is not None:
        facts["basis"] = settlement.basis
    if settlement.charged_by:
        facts["charged_by"] = {
            each.tier.value: {"images": each.images, "unit_price": each.unit_price} for each in settlement.charged_by
        }
    if any(delivery.sizes):
        facts["sizes"] = [write_size(size) for size in delivery.sizes[:SIZES_KEPT]]
        if delivery.images > len(facts["sizes"]):
            facts["sizes_omitted"] = delivery.images - len(facts["sizes"])
    if served.attempts != 1:
        facts["attempts"] = served.attempts
    if delivery.provider_usage is not None:
        facts["provider_usage"] = orjson.Fragment(delivery.provider_usage)
    return orjson.dumps(facts)


def kept_answer(answer: KeptAnswer | None) -> bytes:
    """An answer as it is kept: its status, a blank, its body."""
    return b"" if answer is None else b"%d %b" % (answer.status, answer.body)


def read_kept_answer(kept: bytes) -> KeptAnswer:
    """The other way round."""
    status, _, body = kept.partition(b" ")
    return KeptAnswer(int(status), body)


def entry_from_stream(team: str, stream_id: str, fields: Mapping[str, str]) -> LedgerEntry:
    """A ledger entry out of the stream: its counted figures, and its other facts from their JSON."""
    kind, others = fields.get("kind", ""), orjson.loads(fields.get("facts", "{}"))
    counted = {name: int(value) if name in COUNTED else value for name, value in fields.items()}
    for name in ("kind", "facts"):
        counted.pop(name, None)
    for name in ("corrects", "refunds"):
        if name in counted:
            counted[name] = f"{team}_{counted[name]}"
    return LedgerEntry(
        id=f"{team}_{stream_id}",
        at_ms=int(stream_id.partition("-")[0]),
        kind=kind,
        team=team,
        facts={**counted, **others},
    )


def utc_day(at_ms: int) -> str:
    """The UTC day of a moment, ``YYYY-MM-DD``."""
    return _day(at_ms // DAY_MS)


@lru_cache(maxsize=8)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_MS / 1000, UTC).strftime("%Y-%m-%d")
