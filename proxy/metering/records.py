"""How a key's record and the ledger's entries stand in Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache

from proxy.domain.api_key import team_of
from proxy.domain.errors import InvalidApiKey
from proxy.domain.limits import KeyRecord, Limits, QuotaUsage
from proxy.domain.settlement import LedgerEntry, Settlement

DAY_MS = 86_400_000

_WHY_NOT = {
    b"unknown": "Incorrect API key provided: it is not known here.",
    b"revoked": "The API key has been revoked.",
    b"expired": "The API key has expired.",
}


def invalid_key(verdict: bytes) -> InvalidApiKey | None:
    """The error for a verdict of ``authenticate.lua``, None where it is no refusal."""
    why = _WHY_NOT.get(verdict)
    return InvalidApiKey(why) if why else None


def key_from_fields(key_id: str, fields: Mapping[str, str]) -> KeyRecord:
    """A key's record out of its hash."""

    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    granted_units = number("granted") or 0
    quota_units = number("quota_units")
    return KeyRecord(
        id=key_id,
        team=team_of(key_id) or "",
        name=fields.get("name", ""),
        limits=Limits(quota_units=quota_units, models=tuple(fields.get("models", "*").split("\n"))),
        quota=QuotaUsage(
            limit=None if quota_units is None else quota_units + granted_units,
            posted=number("posted") or 0,
            reserved=number("reserved") or 0,
        ),
        granted_units=granted_units,
        overage_units=number("overage") or 0,
        images=number("images") or 0,
        created_ms=number("created_ms") or 0,
        expires_ms=number("expires_ms"),
        revoked_ms=number("revoked_ms"),
    )


def fields_from_pairs(pairs: Sequence[bytes]) -> dict[str, str]:
    """A hash out of the flat list in which a script replies with it."""
    texts = [item.decode() for item in pairs]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def settlement_fields(settlement: Settlement) -> tuple[str | bytes | int, ...]:
    """The ledger entry of a settlement: name, value, name, value, … in an order that never changes.

    Redis keeps the names of a stream's entries once for all entries that have the same.
    """
    reservation, delivery = settlement.reservation, settlement.delivery
    quote = reservation.quote
    return (
        "kind", "request",
        "key", reservation.key_id,
        "request", reservation.id,
        "endpoint", reservation.endpoint,
        "model", reservation.model,
        "provider", delivery.provider,
        "outcome", delivery.outcome.value,
        "images", delivery.images,
        "requested_images", quote.images,
        "tier", quote.tier.value,
        "unit_price", quote.unit_price,
        "reserved", quote.units,
        "charged", settlement.charged_units,
        "overage", settlement.overage_units,
        "admitted_ms", reservation.admitted_ms,
        "provider_status", delivery.provider_status,
        "provider_ms", delivery.provider_ms,
        "provider_usage", delivery.provider_usage or b"",
    )  # fmt: skip


def entry_from_stream(team: str, stream_id: str, facts: Mapping[str, str]) -> LedgerEntry:
    """A ledger entry out of the stream."""
    others = dict(facts)
    return LedgerEntry(
        id=f"{team}_{stream_id}",
        at_ms=int(stream_id.partition("-")[0]),
        kind=others.pop("kind", ""),
        team=team,
        facts=others,
    )


def utc_day(at_ms: int) -> str:
    """The UTC day of a moment, ``YYYY-MM-DD``."""
    return _day(at_ms // DAY_MS)


@lru_cache(maxsize=8)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_MS / 1000, UTC).strftime("%Y-%m-%d")
