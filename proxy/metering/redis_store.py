"""The store on Redis or Valkey: admit and settle, each one script and one round trip."""

from __future__ import annotations

from typing import Any

import orjson

from proxy.domain.api_key import Credential
from proxy.domain.errors import InsufficientQuota, ModelNotAllowed, StoreUnavailable
from proxy.domain.limits import KeyRecord
from proxy.domain.pricing import Quote
from proxy.domain.settlement import Reservation, Settlement
from proxy.metering import key_names, records
from proxy.metering.script_runner import ScriptRunner
from proxy.metering.scripts import load_script


class RedisStore:
    """See ``Store``; ``lease_ms`` and ``settled_ids_ms`` are settings of accounting."""

    def __init__(self, runner: ScriptRunner, *, lease_ms: int, settled_ids_ms: int) -> None:
        """Run scripts on ``runner``."""
        self._runner = runner
        self._lease_ms = lease_ms
        self._settled_ids_ms = settled_ids_ms
        self._admit = load_script("admit")
        self._settle = load_script("settle")
        self._void = load_script("void")
        self._read_key = load_script("read_key")

    async def admit(
        self, reservation_id: str, credential: Credential, *, endpoint: str, model: str, quote: Quote
    ) -> Reservation:
        """See ``Store.admit``."""
        team, key_id = credential.team, credential.key_id
        facts = orjson.dumps(
            {
                "key": key_id,
                "endpoint": endpoint,
                "model": model,
                "requested_images": quote.images,
                "tier": quote.tier,
                "unit_price": quote.unit_price,
            }
        )
        reply = await self._runner.run(
            self._admit,
            (key_names.key_record(team, key_id), key_names.reservation(team, reservation_id), key_names.leases(team)),
            (reservation_id, credential.secret_sha256, model, quote.units, self._lease_ms, facts),
        )
        if reply[0] != b"admitted":
            raise _refusal(reply, model, quote)
        return Reservation(
            id=reservation_id,
            team=team,
            key_id=key_id,
            endpoint=endpoint,
            model=model,
            quote=quote,
            admitted_ms=reply[1],
            remaining_units=reply[2],
        )

    async def void(self, reservation_id: str, credential: Credential) -> None:
        """See ``Store.void``."""
        team = credential.team
        await self._runner.run(
            self._void,
            (
                key_names.key_record(team, credential.key_id),
                key_names.reservation(team, reservation_id),
                key_names.leases(team),
            ),
            (reservation_id, self._settled_ids_ms),
        )

    async def settle(self, settlement: Settlement) -> None:
        """See ``Store.settle``."""
        reservation = settlement.reservation
        team, key_id = reservation.team, reservation.key_id
        await self._runner.run(
            self._settle,
            (
                key_names.key_record(team, key_id),
                key_names.reservation(team, reservation.id),
                key_names.leases(team),
                key_names.key_usage(team, key_id),
                key_names.ledger(team),
            ),
            (
                reservation.id,
                settlement.charged_units,
                settlement.overage_units,
                settlement.delivery.images,
                reservation.model,
                records.utc_day(reservation.admitted_ms),
                self._settled_ids_ms,
                key_id,
                settlement.delivery.outcome.value,
                records.settlement_facts(settlement),
            ),
        )

    async def read_own_key(self, credential: Credential) -> KeyRecord:
        """See ``Store.read_own_key``."""
        reply = await self._runner.run(
            self._read_key,
            (key_names.key_record(credential.team, credential.key_id),),
            (credential.key_id, credential.secret_sha256),
        )
        refusal = records.invalid_key(reply[0])
        if refusal:
            raise refusal
        return records.key_from_fields(credential.key_id, records.fields_from_pairs(reply[1]))


def _refusal(reply: list[Any], model: str, quote: Quote) -> Exception:
    verdict = reply[0]
    if verdict == b"insufficient_quota":
        limit, posted, reserved = reply[1:]
        remaining = max(0, limit - posted - reserved)
        return InsufficientQuota(
            f"This request needs {quote.units:,} quota units and the key has {remaining:,} left "
            f"(limit {limit:,}, used {posted:,}, reserved by requests in progress {reserved:,})."
        )
    if verdict == b"model_not_allowed":
        return ModelNotAllowed(f"This API key may not use the model '{model}'.", param="model")
    return records.invalid_key(verdict) or StoreUnavailable()
