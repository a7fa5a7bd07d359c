"""How a key's record and the ledger's entries stand in Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from proxy.domain.api_key import team_of
from proxy.domain.errors import InvalidApiKey
from proxy.domain.idempotency import KeptAnswer
from proxy.domain.limits import KeyRecord, Limits, QuotaUsage
from proxy.domain.settlement import LedgerEntry, Settlement

DAY_MS = 86_400_000
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


def settlement_facts(settlement: Settlement) -> bytes:
    """What the ledger keeps of a request beside the figures that are counted, as JSON."""
    reservation, delivery = settlement.reservation, settlement.delivery
    quote = reservation.quote
    facts: dict[str, Any] = {
        "endpoint": reservation.endpoint,
        "model": reservation.model,
        "provider": delivery.provider,
        "provider_status": delivery.provider_status,
        "provider_ms": delivery.provider_ms,
        "requested_images": quote.images,
        "tier": quote.tier,
        "unit_price": quote.unit_price,
        "reserved": quote.units,
        "admitted_ms": reservation.admitted_ms,
    }
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
