"""What is written to the journal, one line each: a checksum, and a settlement or a void as JSON.

A line that was only half written when the power went has a checksum that does not fit, and is left out.
"""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import astuple, dataclass
from typing import Any

import orjson

from proxy.domain.billing.pricing import Quote, Tier, TierCharge
from proxy.domain.billing.settlement import Delivery, Outcome, Reservation, Served, Settlement
from proxy.domain.people import NOBODY, Person
from proxy.domain.requests.idempotency import Idempotency, IdempotencyResult, IdempotencyState

CHECKSUM_LENGTH = 8
NOTE = "note"
"""The kind of a line that says something about the record before it, and is no record."""


@dataclass(frozen=True, slots=True)
class Void:
    """An admission to be voided, whose answer never came: the request was not forwarded."""

    reservation_id: str
    team: str
    key_id: str

    @property
    def id(self) -> str:
        """The reservation's id."""
        return self.reservation_id


@dataclass(frozen=True, slots=True)
class Posting:
    """A settlement to be posted; the answer that goes with an Idempotency-Key is not written down."""

    settlement: Settlement

    @property
    def id(self) -> str:
        """The reservation's id."""
        return self.settlement.reservation.id

    @property
    def team(self) -> str:
        """The team whose ledger it belongs to."""
        return self.settlement.reservation.team


JournalRecord = Posting | Void
"""What the store has not stored yet."""


def write_record(owed: JournalRecord) -> bytes:
    """The line for ``owed``, newline included."""
    return _line(_void(owed) if isinstance(owed, Void) else _posting(owed.settlement))


def write_note(note: dict[str, Any]) -> bytes:
    """A line with what a person should know of the record before it, newline included."""
    return _line({**note, "kind": NOTE})


def read_notes(content: bytes) -> list[dict[str, Any]]:
    """All whole notes in ``content``."""
    found = []
    for line in content.split(b"\n"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            facts = _facts(line.strip(b"\0"))
            if facts["kind"] == NOTE:
                found.append(facts)
    return found


def _line(facts: dict[str, Any]) -> bytes:
    payload = orjson.dumps(facts)
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


def read_records(content: bytes) -> tuple[list[JournalRecord], int]:
    """All whole records in ``content``, and the number of those that are damaged.

    The journal's file is longer than what has been written to it: the rest of it is NUL bytes.
    """
    found: list[JournalRecord] = []
    damaged = 0
    for line in content.split(b"\n"):
        text = line.strip(b"\0")
        if not text:
            continue
        try:
            facts = _facts(text)
            if facts["kind"] != NOTE:
                found.append(_record(facts))
        except (ValueError, KeyError, TypeError):
            damaged += 1
    return found, damaged


def _facts(line: bytes) -> dict[str, Any]:
    checksum, blank, payload = line[:CHECKSUM_LENGTH], line[CHECKSUM_LENGTH:][:1], line[CHECKSUM_LENGTH + 1 :]
    if blank != b" " or int(checksum, 16) != zlib.crc32(payload):
        raise ValueError("the checksum does not fit")
    facts: dict[str, Any] = orjson.loads(payload)
    return facts


def _record(facts: dict[str, Any]) -> JournalRecord:
    if facts["kind"] == "void":
        return Void(facts["id"], facts["team"], facts["key"])
    return Posting(_settlement(facts))


def _void(void: Void) -> dict[str, Any]:
    return {"kind": "void", "id": void.reservation_id, "team": void.team, "key": void.key_id}


def _posting(settlement: Settlement) -> dict[str, Any]:
    reservation, delivery = settlement.reservation, settlement.delivery
    quote, usage, ending = reservation.quote, delivery.provider_usage, settlement.ending
    served = delivery.served
    return {
        "kind": "settlement",
        "id": reservation.id,
        "team": reservation.team,
        "key": reservation.key_id,
        "endpoint": reservation.endpoint,
        "model": reservation.model,
        "asked_model": reservation.asked_model,
        "person": [reservation.person.user, reservation.person.tags],
        "per_user": reservation.per_user,
        "requested_images": quote.images,
        "unit_price": quote.unit_price,
        "reserved": quote.units,
        "tier": quote.tier,
        "admitted_ms": reservation.admitted_ms,
        "outcome": delivery.outcome,
        "images": delivery.images,
        "text_units": 0 if delivery.images else settlement.charged_units,
        "image_units": settlement.charged_units if delivery.images else None,
        "charged_by": [astuple(each) for each in settlement.charged_by],
        "price_rule": quote.rule,
        "basis": settlement.basis,
        "sizes": delivery.sizes,
        "provider": served.provider,
        "provider_status": served.status,
        "provider_ms": served.ms,
        "attempts": served.attempts,
        "provider_usage": None if usage is None else usage.decode(),
        "whole": delivery.whole,
        "idempotency": None if ending is None else [*astuple(ending.idempotency), ending.state],
    }


def _settlement(facts: dict[str, Any]) -> Settlement:
    usage, given = facts["provider_usage"], facts["idempotency"]
    ending = None if given is None else IdempotencyResult(Idempotency(given[0], given[1]), IdempotencyState(given[2]))
    reservation = Reservation(
        id=facts["id"],
        team=facts["team"],
        key_id=facts["key"],
        endpoint=facts["endpoint"],
        model=facts["model"],
        quote=Quote(
            images=facts["requested_images"],
            unit_price=facts["unit_price"],
            units=facts["reserved"],
            tier=Tier(facts["tier"]),
            rule=facts.get("price_rule", ""),
        ),
        admitted_ms=facts["admitted_ms"],
        remaining_units=None,
        idempotency=None if ending is None else ending.idempotency,
        asked_model=facts.get("asked_model", ""),
        person=_person(facts.get("person")),
        per_user=facts.get("per_user", ""),
    )
    delivery = Delivery(
        # A journal of before there were deployments has no attempts.
        served=Served(facts["provider"], facts["provider_status"], facts.get("attempts", 1), facts["provider_ms"]),
        outcome=Outcome(facts["outcome"]),
        ended=True,
        whole=facts["whole"],
        images=facts["images"],
        # Journals of earlier versions have none of what is looked for by ``get``.
        sizes=tuple(None if size is None else (size[0], size[1]) for size in facts.get("sizes", ())),
        provider_usage=None if usage is None else usage.encode(),
    )
    charged_by = tuple(TierCharge(Tier(tier), images, price) for tier, images, price in facts.get("charged_by", ()))
    return Settlement(reservation, delivery, _charged_units(facts), charged_by, ending, facts.get("basis"))


def _person(given: list[Any] | None) -> Person:
    return NOBODY if given is None else Person(given[0], tuple((name, value) for name, value in given[1]))


def _charged_units(facts: dict[str, Any]) -> int:
    images: int = facts["images"]
    text_units: int = facts.get("text_units", 0)
    image_units: int | None = facts.get("image_units")
    if not images:
        return text_units
    return images * facts["unit_price"] if image_units is None else image_units
