"""The store on Redis or Valkey: admit and settle, each one script and one round trip."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from typing_extensions import override

from proxy.domain.api_key import Credential
from proxy.domain.billing.pricing import Quote
from proxy.domain.billing.settlement import Reservation, Settlement
from proxy.domain.errors import StoreUnavailable
from proxy.domain.limits import Caller
from proxy.domain.requests.idempotency import Idempotency
from proxy.metering.redis.connection import Argument
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store import facts as records
from proxy.metering.redis_store import keys as key_names
from proxy.metering.redis_store.commands import COUNTS_USERS, IDEMPOTENCY_MS, NOTHING, Commands, Learnt
from proxy.metering.redis_store.ledger_search import LedgerSearch
from proxy.metering.redis_store.recent import RecentSettlements
from proxy.metering.redis_store.reclaiming import Reclaiming
from proxy.metering.redis_store.replies import read_rates, read_refusal
from proxy.metering.redis_store.usage_folding import UsageFolding
from proxy.metering.store import NO_DETAILS, Details, Store
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

UNDECIDED = frozenset({b"again", b"seen", b"users"})
"""Replies of ``admit.lua`` that ask for something first."""

TRIES_TO_ADMIT = 6
"""How often an admission is asked for: again once for a key that limits its users, once after leases were reclaimed,
and for each reservation of a name."""

KEYS_REMEMBERED = 10_000
"""Keys known to have limits of each user; each of the others takes one more round trip, the first time."""

Request = tuple[str, Credential, str, str, Quote, Idempotency | None, Details]
"""What ``Commands.admit`` is given."""


class RedisStore(Store):
    """``lease_ms`` and ``settled_ids_ms`` are settings of accounting."""

    def __init__(
        self,
        runner: ScriptRunner,
        metrics: Metrics,
        *,
        lease_ms: int,
        settled_ids_ms: int,
        charge_expired: bool = False,
        burst_ms: int = 60_000,
    ) -> None:
        """Run scripts on ``runner``. Where ``charge_expired``, an expired lease is charged whole.

        As much of a rate limit as belongs to ``burst_ms`` milliseconds may come at once.
        """
        self._burst_us = burst_ms * 1_000
        self._commands = Commands(
            lease_ms=lease_ms, settled_ids_ms=settled_ids_ms, burst_us=self._burst_us, charge_expired=charge_expired
        )
        self._runner = runner
        self._call_ids = count(1)
        self._lease_ms = lease_ms
        self._settled_ids_ms = settled_ids_ms
        self._admit = load_script("admit")
        self._settle = load_script("settle")
        self._void = load_script("void")
        self._read_key = load_script("read_key")
        self._renew = load_script("renew")
        self._reclaiming = Reclaiming(runner, metrics, remember_ms=settled_ids_ms)
        self._search = LedgerSearch(runner)
        self.folding = UsageFolding(runner)
        self._counts_users: dict[str, None] = {}
        """Ids of keys, the one first that was learnt of first."""
        self._recent = RecentSettlements(runner, self._settle, metrics)
        runner.on_connected.append(self._recent.post_again)

    @override
    async def admit(
        self,
        reservation_id: str,
        credential: Credential,
        *,
        endpoint: str,
        model: str,
        quote: Quote,
        idempotency: Idempotency | None = None,
        details: Details = NO_DETAILS,
    ) -> Reservation:
        team, key_id = credential.team, credential.key_id
        request: Request = (reservation_id, credential, endpoint, model, quote, idempotency, details)
        learnt = COUNTS_USERS if key_id in self._counts_users else NOTHING
        command = self._commands.admit(*request, learnt)
        reply = await self._runner.reply_to(self._runner.submit_command(self._admit, reservation_id, command))
        if reply[0] in UNDECIDED:
            reply, learnt = await self._admit_again(team, request, reply, learnt)
        elif reply[-1]:
            self._reclaiming.reclaim_soon(team)
        if reply[0] != b"admitted":
            raise read_refusal(reply, details.alias or model, quote, details.person)
        allowed: tuple[str, ...] = ()
        if details.fallback_units:
            quote, allowed = replace(quote, units=reply[4]), tuple(name.decode() for name in reply[5])
        per_user = reply[-2].decode() if learnt.counts_users else ""
        if learnt.counts_users and not per_user:
            self._counts_users.pop(key_id, None)
        return Reservation(
            id=reservation_id,
            team=team,
            key_id=key_id,
            endpoint=endpoint,
            model=model,
            quote=quote,
            fallbacks=allowed,
            admitted_ms=reply[1],
            remaining_units=reply[2],
            rates=read_rates(reply[3]),
            idempotency=idempotency,
            person=details.person,
            per_user=per_user,
        )

    def _remember_users(self, key_id: str) -> None:
        """The key, or its team, has limits of each user."""
        if key_id not in self._counts_users and len(self._counts_users) >= KEYS_REMEMBERED:
            del self._counts_users[next(iter(self._counts_users))]
        self._counts_users[key_id] = None

    async def _admit_again(
        self, team: str, request: Request, reply: list[Any], learnt: Learnt
    ) -> tuple[list[Any], Learnt]:
        """The reply after what it takes: expired leases reclaimed, and the reservation of a name looked at."""
        for _ in range(TRIES_TO_ADMIT):
            if reply[0] == b"again":
                await self._reclaiming.reclaim(team)
                learnt = replace(learnt, has_reclaimed=True)
            elif reply[0] == b"seen":
                learnt = replace(learnt, seen=reply[1].decode())
            elif reply[0] == b"users":
                self._remember_users(request[1].key_id)
                learnt = replace(learnt, counts_users=True)
            else:
                return reply, learnt
            command = self._commands.admit(*request, learnt)
            reply = await self._runner.reply_to(self._runner.submit_command(self._admit, request[0], command))
        raise StoreUnavailable

    @override
    async def void(self, reservation_id: str, team: str, key_id: str) -> None:
        keys: tuple[str, ...] = (
            key_names.key_record(team, key_id),
            key_names.reservation(team, reservation_id),
            key_names.leases(team),
            key_names.team_record(team),
            key_names.key_usage(team, key_id),
            key_names.team_usage(team),
            key_names.ledger(team),
            key_names.refunds(team),
        )
        # A client's name for the request is free again for as long as it is remembered.
        arguments: tuple[Argument, ...] = (reservation_id, max(self._settled_ids_ms, IDEMPOTENCY_MS))
        reply = await self._runner.run(self._void, keys, arguments)
        if reply[0] == b"users":
            user = reply[1].decode()
            keys += (key_names.used_by_user(team, key_id, user), key_names.used_by_user(team, "", user))
            await self._runner.run(self._void, keys, (*arguments, key_names.user_id(user)))

    @override
    async def renew(self, team: str, reservation_ids: Sequence[str]) -> None:
        await self._runner.run(self._renew, (key_names.leases(team),), self._renewal(reservation_ids))

    @override
    def renew_soon(self, team: str, reservation_ids: Sequence[str]) -> None:
        call = self._runner.submit(self._renew, (key_names.leases(team),), self._renewal(reservation_ids))
        call.reply.add_done_callback(_ignore_failure)

    def _renewal(self, reservation_ids: Sequence[str]) -> tuple[Argument, ...]:
        return (f"renew_{next(self._call_ids)}", self._lease_ms, *reservation_ids)

    @override
    def on_connected(self, callback: Callable[[], None]) -> None:
        self._runner.on_connected.append(callback)

    async def reclaim(self, team: str) -> records.StoreTime:
        """Reclaim what expired leases of ``team`` hold; when that was. Raises StoreUnavailable."""
        return self.moment(await self._reclaiming.reclaim(team))

    async def reclaim_all(self, teams: Sequence[str]) -> list[records.StoreTime]:
        """The same for several teams, the calls of all in one round trip where none has very many expired leases."""
        return await asyncio.gather(*(self.reclaim(team) for team in teams))

    def moment(self, now_us: int) -> records.StoreTime:
        """What it takes to read records that a script gave at ``now_us``."""
        return records.StoreTime(now_us, self._burst_us)

    @override
    async def settle(self, settlement: Settlement) -> str:
        reservation = settlement.reservation
        command = self._commands.settle(settlement)
        call = self._runner.submit_command(self._settle, reservation.id, command)
        reply = await self._runner.reply_to(call)
        if reply[0] == b"old":
            found = await self._search.find(reservation)
            state, _, entry_id = found.partition(" ")
            if state == "settled":
                return entry_id
            command = self._commands.settle(settlement, found)
            call = self._runner.submit_command(self._settle, reservation.id, command)
            reply = await self._runner.reply_to(call)
        else:
            if settlement.ending is not None:
                # An answer would take too much of the memory.
                command = self._commands.settle(settlement.without_answer())
            self._recent.add(command, reply[1])
        self.folding.settled(reservation.team, reservation.key_id, reservation.admitted_ms)
        return _entry_id(settlement, reply)

    @override
    async def read_own_key(self, credential: Credential) -> Caller:
        keys = (
            key_names.key_record(credential.team, credential.key_id),
            key_names.leases(credential.team),
            key_names.team_record(credential.team),
        )
        reply = await self._runner.run(self._read_key, keys, (credential.key_id, credential.secret_sha256, 1))
        if reply[0] == b"again":
            await self._reclaiming.reclaim(credential.team)
            reply = await self._runner.run(self._read_key, keys, (credential.key_id, credential.secret_sha256, 0))
        refusal = records.invalid_key(reply[0])
        if refusal:
            raise refusal
        _ok, key, team, now_us = reply
        at = self.moment(now_us)
        return Caller(
            records.key_from_fields(credential.key_id, records.fields_from_pairs(key), at),
            records.team_from_fields(credential.team, records.fields_from_pairs(team), at),
        )


def _entry_id(settlement: Settlement, reply: list[Any]) -> str:
    if reply[0] == b"late":
        logger.warning("%s was settled after its lease had expired", settlement.reservation.id)
    elif reply[0] == b"lost":
        logger.error("%s was settled, but the store had lost its reservation", settlement.reservation.id)
    return str(reply[1], "ascii")


def _ignore_failure(reply: asyncio.Future[list[Any]]) -> None:
    if not reply.cancelled():
        reply.exception()
