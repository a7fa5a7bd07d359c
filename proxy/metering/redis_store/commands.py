"""The two commands of every request, to admit and to settle.

Most of them is the same for all requests of a key that are alike: that is packed once and remembered, with a gap
wherever the reservation's id goes, for ids are all of one length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from proxy.domain.api_key import Credential
from proxy.domain.billing.pricing import Quote
from proxy.domain.billing.settlement import Settlement
from proxy.domain.people import Person
from proxy.domain.requests.idempotency import Idempotency
from proxy.metering.redis.connection import WORDS_BEFORE_KEYS, Argument, begin_packed, pack, pack_call, packed_words
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store import facts as records
from proxy.metering.redis_store import keys as key_names
from proxy.metering.store import NO_DETAILS, Details

IDEMPOTENCY_MS = 24 * 60 * 60 * 1000
REMEMBERED = 4_096
ARGUMENTS_BEFORE_ALIAS, ARGUMENTS_BEFORE_USER = 7, 9
"""Of ``admit.lua``."""

ARGUMENTS_BEFORE_PER_USER = 16
"""Of ``settle.lua``."""

_GAP = "\0"
"""In no name and in no text of a command; only numbers have it."""

_numbers = struct.Struct(">5q")
"""Of ``admit.lua``."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What earlier replies to an admission have led to, see ``admit.lua``.

    Expired leases were reclaimed; ``seen`` is the reservation that the client's name for the request stands for. Where
    it ``counts_users``, the key or its team has limits of each user.
    """

    has_reclaimed: bool = False
    seen: str = ""
    counts_users: bool = False


NOTHING = Learnt()
COUNTS_USERS = Learnt(counts_users=True)


class Commands:
    """What is sent for a request; ``lease_ms`` and ``settled_ids_ms`` are settings of accounting."""

    def __init__(self, *, lease_ms: int, settled_ids_ms: int, burst_us: int, charge_expired: bool) -> None:
        """Where ``charge_expired``, an expired lease is charged whole.

        As much of a rate limit as belongs to ``burst_us`` microseconds may come at once.
        """
        self._lease_ms = lease_ms
        self._settled_ids_ms = settled_ids_ms
        self._burst_us = burst_us
        self._charge_expired = charge_expired
        self._admit = load_script("admit")
        self._settle = load_script("settle")
        self._admission_parts = lru_cache(REMEMBERED)(self._pack_admission_parts)
        self._person_parts = lru_cache(REMEMBERED)(self._pack_person_parts)
        self._settlement_parts = lru_cache(REMEMBERED)(self._pack_settlement_parts)

    def admit(
        self,
        reservation_id: str,
        credential: Credential,
        endpoint: str,
        model: str,
        quote: Quote,
        idempotency: Idempotency | None = None,
        details: Details = NO_DETAILS,
        learnt: Learnt = NOTHING,
    ) -> bytes:
        """Admit a request; ``learnt`` is what the replies to the same admission have asked for."""
        if idempotency is None and details is NO_DETAILS and learnt is NOTHING:
            team, key_id, secret_sha256 = credential.team, credential.key_id, credential.secret_sha256
            parts = self._admission_parts(len(reservation_id), team, key_id, secret_sha256, endpoint, model, quote)
            return reservation_id.encode().join(parts)
        if idempotency is None and details.names_only_a_person and learnt is NOTHING:
            team, key_id, secret_sha256 = credential.team, credential.key_id, credential.secret_sha256
            begin, facts, rest = self._person_parts(
                len(reservation_id), team, key_id, secret_sha256, endpoint, model, quote
            )
            own = pack(_with_person(facts, details.person))
            return b"".join((reservation_id.encode().join(begin), packed_words(own), rest))
        return self._pack_admission(reservation_id, credential, endpoint, model, quote, idempotency, details, learnt)

    def settle(self, settlement: Settlement, found: str = "") -> bytes:
        """Settle it; ``found`` is what a look into the ledger has, see ``settle.lua``."""
        reservation, ending = settlement.reservation, settlement.ending
        team, key_id = reservation.team, reservation.key_id
        arguments: tuple[Argument, ...] = (
            reservation.id,
            settlement.charged_units,
            settlement.overage_units,
            settlement.delivery.images,
            reservation.model,
            records.utc_day(reservation.admitted_ms),
            self._settled_ids_ms,
            key_id,
            settlement.delivery.outcome,
            records.settlement_facts(settlement),
            reservation.admitted_ms,
        )
        if ending is None and not reservation.per_user and not found:
            parts = self._settlement_parts(len(reservation.id), team, key_id, len(arguments))
            return reservation.id.encode().join(parts) + packed_words(pack(*arguments))
        keys = _settlement_keys(team, key_id, reservation.id)
        arguments += (found,)
        if ending is not None:
            idempotency = ending.idempotency
            keys += (_name(team, key_id, idempotency),)
            arguments += (idempotency.body_sha256, ending.state, records.kept_answer(ending.answer), IDEMPOTENCY_MS)
        if reservation.per_user:
            keys += _of_user(team, key_id, key_names.user_id(reservation.person.user))
            arguments += ("",) * (ARGUMENTS_BEFORE_PER_USER - len(arguments))
            arguments += (reservation.per_user,)
        return pack_call(self._settle, keys, arguments)

    def _pack_admission(
        self,
        reservation_id: str,
        credential: Credential,
        endpoint: str,
        model: str,
        quote: Quote,
        idempotency: Idempotency | None = None,
        details: Details = NO_DETAILS,
        learnt: Learnt = NOTHING,
    ) -> bytes:
        team, key_id, person = credential.team, credential.key_id, details.person
        keys: tuple[str, ...] = (
            key_names.key_record(team, key_id),
            key_names.reservation(team, reservation_id),
            key_names.leases(team),
            key_names.team_record(team),
        )
        arguments: tuple[Argument, ...] = (
            reservation_id,
            credential.secret_sha256,
            model,
            _with_person(_admission_facts(key_id, endpoint, model, quote, charge_expired=self._charge_expired), person),
            _numbers.pack(quote.units, quote.images, self._lease_ms, not learnt.has_reclaimed, self._burst_us),
        )
        if idempotency is not None:
            keys += (_name(team, key_id, idempotency),)
            if learnt.seen:
                keys += (key_names.reservation(team, learnt.seen),)
            arguments += (idempotency.body_sha256, IDEMPOTENCY_MS)
        if details.alias is not None or details.fallback_units:
            arguments += ("",) * (ARGUMENTS_BEFORE_ALIAS - len(arguments))
            arguments += (details.alias or "",)
        if details.fallback_units:
            arguments += ("\n".join(f"{name} {units}" for name, units in details.fallback_units.items()),)
        if learnt.counts_users:
            arguments += ("",) * (ARGUMENTS_BEFORE_USER - len(arguments))
            user = key_names.user_id(person.user)
            arguments += (user,)
            keys += _of_user(team, key_id, user)
        return pack_call(self._admit, keys, arguments)

    def _pack_admission_parts(
        self, id_length: int, team: str, key_id: str, secret_sha256: str, endpoint: str, model: str, quote: Quote
    ) -> list[bytes]:
        begin, facts, rest = self._person_parts(id_length, team, key_id, secret_sha256, endpoint, model, quote)
        return [*begin[:-1], b"".join((begin[-1], packed_words(pack(facts)), rest))]

    def _pack_person_parts(
        self, id_length: int, team: str, key_id: str, secret_sha256: str, endpoint: str, model: str, quote: Quote
    ) -> tuple[list[bytes], bytes, bytes]:
        """The same where the facts name a person: what comes before the facts, those that are alike, and the rest."""
        gap = _GAP * id_length
        packed = self._pack_admission(gap, Credential(team, key_id, secret_sha256), endpoint, model, quote)
        facts = _admission_facts(key_id, endpoint, model, quote, charge_expired=self._charge_expired)
        begin, _, rest = packed.partition(packed_words(pack(facts)))
        return begin.split(gap.encode()), facts, rest

    def _pack_settlement_parts(self, id_length: int, team: str, key_id: str, arguments: int) -> list[bytes]:
        """All that comes before so many ``arguments``."""
        gap = _GAP * id_length
        keys = _settlement_keys(team, key_id, gap)
        begin = begin_packed(WORDS_BEFORE_KEYS + len(keys) + arguments, pack_call(self._settle, keys, ()))
        return begin.split(gap.encode())


def _settlement_keys(team: str, key_id: str, reservation_id: str) -> tuple[str, ...]:
    return (
        key_names.key_record(team, key_id),
        key_names.reservation(team, reservation_id),
        key_names.leases(team),
        key_names.key_usage(team, key_id),
        key_names.ledger(team),
        key_names.team_record(team),
        key_names.team_usage(team),
        key_names.refunds(team),
    )


def _of_user(team: str, key_id: str, user: str) -> tuple[str, str]:
    """What the end user of this id has used under the key, and under the team."""
    return key_names.user_counters(team, key_id, user), key_names.user_counters(team, "", user)


def _name(team: str, key_id: str, idempotency: Idempotency) -> str:
    """What a client calls its request, as a key."""
    return key_names.idempotency(team, key_id, idempotency.key_sha256)


def _admission_facts(key_id: str, endpoint: str, model: str, quote: Quote, *, charge_expired: bool) -> bytes:
    """What the ledger entry of an expired lease has to say."""
    facts: dict[str, Any] = {
        "key": key_id,
        "endpoint": endpoint,
        "model": model,
        "requested_images": quote.images,
        "tier": quote.tier,
        "unit_price": quote.unit_price,
    }
    if quote.rule:
        facts["price_rule"] = quote.rule
    if charge_expired:
        facts["expired"] = "charge"
    return orjson.dumps(facts)


def _with_person(facts: bytes, person: Person) -> bytes:
    """The same facts, and whom the request is for."""
    own = person.facts()
    return b"%b,%b" % (facts[:-1], orjson.dumps(own)[1:]) if own else facts
