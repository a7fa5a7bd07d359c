"""Changes to the records of keys and teams, which have the same scripts: each is in the audit record as well."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.domain.catalog import UNITS_LIMIT
from proxy.domain.errors import Conflict, InvalidRequest, NotFound
from proxy.metering.actor import Actor
from proxy.metering.redis.connection import Argument
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store import facts as records
from proxy.metering.redis_store import keys as key_names

GRANT_IDS_MS = 86_400_000
CHANGE_IDS_MS = 3_600_000
"""A call whose reply was lost comes again within seconds."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A record after its change: its fields, and the store's time in microseconds."""

    fields: Mapping[str, str]
    now_us: int


@dataclass(frozen=True, slots=True)
class Target:
    """The record that is to be changed: its place in the store, and what audit and errors call it.

    ``key_id`` is empty for a team; ``ended`` is what it means that it was revoked: "revoked", or "deleted".
    """

    team: str
    record: str
    kind: str
    id: str
    ended: str
    key_id: str = ""

    def missing(self) -> NotFound:
        """There is none."""
        return NotFound(f"There is no {self.kind} '{self.id[:100]}'.")


class RecordChanges:
    """Changes through scripts. Everything here raises StoreUnavailable where Redis cannot be asked."""

    def __init__(self, runner: ScriptRunner) -> None:
        """Run the scripts on ``runner``."""
        self._runner = runner

    async def change(
        self, target: Target, action: str, rest: Sequence[Argument] = (), *, overlap_ms: int = 0, by: Actor
    ) -> Changed:
        """``update``, ``revoke`` or ``rotate`` a record. Raises NotFound or Conflict."""
        said = "delete" if action == "revoke" and target.ended == "deleted" else action
        change_id = f"change_{secrets.token_hex(12)}"
        call = by.asks(
            (target.record, key_names.change(target.team, change_id)),
            (change_id, action, overlap_ms, CHANGE_IDS_MS, *rest),
            team=target.team,
            action=f"{target.kind}.{said}",
            target=target.id,
        )
        reply = await self._runner.run(load_script("update_record"), *call)
        _raise_verdict(reply[0], target)
        return Changed(records.fields_from_pairs(reply[1]), reply[2])

    async def grant(self, target: Target, *, quota_units: int, reason: str, by: Actor) -> tuple[Changed, str]:
        """Top up, or take back; the record after it, and the ledger entry's id.

        Raises NotFound, Conflict or InvalidRequest.
        """
        grant_id = f"grant_{secrets.token_hex(12)}"
        call = by.asks(
            (target.record, key_names.grant(target.team, grant_id), key_names.ledger(target.team)),
            (grant_id, quota_units, UNITS_LIMIT // 4, GRANT_IDS_MS, target.key_id, orjson.dumps({"reason": reason})),
            team=target.team,
            action=f"{target.kind}.grant",
            target=target.id,
        )
        reply = await self._runner.run(load_script("grant"), *call)
        _raise_verdict(reply[0], target)
        if reply[0] == b"too_much":
            raise InvalidRequest(
                f"'quota_units' brings the sum of grants, now {reply[1]:,}, past what can be counted exactly.",
                param="quota_units",
            )
        return Changed(records.fields_from_pairs(reply[2]), reply[3]), f"{target.team}_{reply[1].decode()}"


def _raise_verdict(verdict: bytes, target: Target) -> None:
    if verdict == b"missing":
        raise target.missing()
    if verdict == b"revoked":
        raise Conflict(f"The {target.kind} '{target.id}' has been {target.ended}, and cannot be changed any more.")


# --- Records as they are written -------------------------------------------------------------------------------------


def fields_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a record; None becomes the empty text, which takes a field away."""
    texts = {name: "" if value is None else str(value) for name, value in values.items() if name != "models"}
    if "models" in values:
        texts["models"] = "\n".join(values["models"])
    return texts


def given_fields(values: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a new record: those that have a value."""
    return {name: value for name, value in fields_of(values).items() if value != ""}


def flat(fields: Mapping[str, str]) -> tuple[str, ...]:
    """As a script takes them: name, value, name, value, …"""
    return tuple(text for pair in fields.items() for text in pair)
