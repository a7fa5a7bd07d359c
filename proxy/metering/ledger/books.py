"""What is asked of the ledger beside reading it: refunds, trimming, and the figures that ``verify`` compares."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import orjson

from proxy.domain.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from proxy.metering.actor import NOBODY, Actor
from proxy.metering.pages import Page
from proxy.metering.redis.connection import Argument
from proxy.metering.redis.pool import StorePool, reads_of
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store import facts as records
from proxy.metering.redis_store import keys as key_names
from proxy.metering.redis_store.charges import FIRST_DAY
from proxy.metering.redis_store.store import RedisStore
from proxy.metering.redis_store.team_index import TeamIndex
from proxy.metering.redis_store.user_counters import NOTHING_USED, UserCounters, read_counters

TRIM_BATCH = 200
"""Entries in one call of a script, which no other call may wait long for."""

LEASES_COMPARED = 2_000
"""Of a team, at one moment: each is read in the same call of a script as the counters that it belongs to."""

TRIES_TO_READ = 40
TRIES_WITH_LEASES = 20
"""Before the rest is read without them: a team that admits ten thousand requests a second has others each time."""

FIELDS_A_PAGE = 5_000
"""Of usage, after which a page of keys ends."""


@dataclass(frozen=True, slots=True)
class KeyBooks:
    """What the store says of one key at one moment; counters by their names in the store.

    ``checkpoint`` is what trimmed entries add up to. Usage of days before ``usage_from`` stands under ``earlier``.
    ``held_units`` is what live leases hold, by the UTC day of their admission, ``YYYY-MM-DD``; ``held_reservations`` is
    None where the team has more leases than are looked at. The team itself has an empty id.
    """

    id: str
    record: dict[str, str]
    usage: dict[str, str]
    checkpoint: dict[str, str]
    usage_from: str | None
    held_reservations: int | None
    held_units: dict[str, int]


@dataclass(frozen=True, slots=True)
class Trimmed:
    """How many entries were taken out, and whether as old ones wait to be shipped."""

    entries: int
    waits: bool


@dataclass(frozen=True, slots=True)
class BooksPage:
    """Keys of a team as they were when the ledger's last entry was ``as_of``, and ``trimmed`` the last taken out."""

    as_of: str
    trimmed: str
    stray_leases: list[str]
    keys: list[KeyBooks]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class UsersPage:
    """What end users have used, when the ledger's last entry was ``as_of``; None where nothing counts any more.

    ``leases`` is how many reservations the team held, ``now_ms`` the store's time.
    """

    as_of: str
    leases: int
    now_ms: int
    users: list[UserCounters | None]


class LedgerBooks:
    """Everything here raises StoreUnavailable where the store cannot be asked."""

    def __init__(self, runner: ScriptRunner, pool: StorePool, store: RedisStore) -> None:
        """Run scripts on ``runner``, list teams through ``pool``.

        ``store`` reclaims what expired leases hold, before each look at the counters.
        """
        self._runner = runner
        self._index = TeamIndex(reads_of(pool))
        self._store = store
        self._call_ids = count(1)

    async def teams(self, *, cursor: str | None = None, limit: int) -> Page[str]:
        """Teams in the order of their ids."""
        names = await self._index.after(cursor, count=limit + 1)
        return Page(names[:limit], names[limit - 1] if len(names) > limit else None)

    @property
    def team_parts(self) -> Sequence[str]:
        """Parts of the list of teams, for those who go on with the others where one cannot be read."""
        return self._index.parts

    async def teams_of(self, part: str, *, cursor: str | None = None, limit: int) -> Page[str]:
        """The teams of one part, in the order of their ids."""
        names = await self._index.part_after(part, cursor, count=limit + 1)
        return Page(names[:limit], names[limit - 1] if len(names) > limit else None)

    async def read(self, team: str, *, after: str, limit: int) -> BooksPage:
        """Up to ``limit`` keys of ``team``, beginning after the key ``after``, all at one moment."""
        await self._store.reclaim(team)
        reply = await self._read(team, after, limit)
        as_of, trimmed, strays, keys, more = reply
        return BooksPage(
            as_of=as_of.decode(),
            trimmed=trimmed.decode(),
            stray_leases=[stray.decode() for stray in strays],
            keys=[_key_books(key) for key in keys],
            next_cursor=keys[-1][0].decode() if more else None,
        )

    async def _read(self, team: str, after: str, limit: int) -> list[Any]:
        """The reply of ``read_books.lua`` once it was told what is there; leases may come faster than that."""
        key_ids: list[str] = []
        reservations: list[str] = []
        for tried in range(TRIES_TO_READ):
            keys = [*_team_books(team)]
            for key_id in key_ids:
                keys += [
                    key_names.key_record(team, key_id),
                    key_names.key_usage(team, key_id),
                    key_names.key_checkpoint(team, key_id),
                ]
            keys += [key_names.reservation(team, each) for each in reservations]
            leases = LEASES_COMPARED if tried < TRIES_WITH_LEASES else -1
            call: tuple[Argument, ...] = (f"books_{next(self._call_ids)}", after, limit, leases, FIELDS_A_PAGE)
            call += (len(key_ids), *key_ids, *reservations)
            verdict, *reply = await self._runner.run(load_script("read_books"), keys, call)
            if verdict == b"books":
                return reply
            key_ids, reservations = ([each.decode() for each in names] for names in reply)
        raise StoreUnavailable

    async def read_users(self, team: str, users: Sequence[tuple[str, str]]) -> UsersPage:
        """What end users have used of a key or the team: each the id of that and the user's id, see ``user_id``."""
        await self._store.reclaim(team)
        names = [key_names.user_counters(team, "" if account == team else account, user) for account, user in users]
        keys = (key_names.ledger(team), key_names.checkpoint(team), key_names.leases(team), *names)
        reply = await self._runner.run(load_script("read_users"), keys, (f"users_{next(self._call_ids)}",))
        as_of, leases, now_us, used = reply
        now_ms = now_us // 1_000
        counters = [read_counters(each, now_ms) for each in used]
        return UsersPage(as_of.decode(), leases, now_ms, [None if each is NOTHING_USED else each for each in counters])

    async def refund(self, team: str, stream_id: str, *, reason: str, by: Actor = NOBODY) -> str:
        """Reverse a ledger entry; the id of the entry that does. Raises NotFound, Conflict or InvalidRequest."""
        entry = f"{team}_{stream_id}"
        call_id = f"refund_{secrets.token_hex(12)}"

        async def ask(key_id: str, user: str | None = None) -> list[Any]:
            of_user = (
                ()
                if user is None
                else (key_names.used_by_user(team, key_id, user), key_names.used_by_user(team, "", user))
            )
            call = by.asks(
                (
                    key_names.ledger(team),
                    key_names.refunds(team),
                    key_names.team_record(team),
                    key_names.team_usage(team),
                    key_names.key_record(team, key_id),
                    key_names.key_usage(team, key_id),
                    *of_user,
                ),
                (call_id, stream_id, orjson.dumps(reason), key_id),
                team=team,
                action="ledger.refund",
                target=entry,
            )
            return await self._runner.run(load_script("refund"), *call)

        reply = await ask("")
        if reply[0] == b"key":
            reply = await ask(reply[1].decode(), None if reply[2] is None else reply[2].decode())
        if reply[0] == b"missing":
            raise NotFound(f"There is no ledger entry '{entry}'.")
        if reply[0] == b"nothing":
            raise InvalidRequest(f"The ledger entry '{entry}' charged nothing, so there is nothing to refund.")
        refund = f"{team}_{reply[1].decode()}"
        if reply[0] == b"corrected":
            raise Conflict(f"The charge of '{entry}' has been replaced by that of '{refund}'; refund that one.")
        if reply[0] == b"already":
            raise Conflict(f"The ledger entry '{entry}' has been refunded already, by '{refund}'.")
        return refund

    async def trim(self, team: str, *, keep_ms: int, shippers: Sequence[str] = ()) -> Trimmed:
        """Take entries older than ``keep_ms`` out of a team's ledger, into its checkpoint.

        Those that one of ``shippers`` has not shipped stay.
        """
        keys = (
            key_names.ledger(team),
            key_names.checkpoint(team),
            key_names.refunds(team),
            key_names.key_checkpoint(team, ""),
        )
        trimmed = 0
        key_ids: list[str] = []
        while True:
            reply = await self._runner.run(
                load_script("trim"),
                (*keys, *(key_names.key_checkpoint(team, key_id) for key_id in key_ids)),
                (f"trim_{next(self._call_ids)}", keep_ms, TRIM_BATCH, len(shippers), *shippers, *key_ids),
            )
            trimmed += int(reply[0])
            if reply[1]:
                key_ids = [key_id.decode() for key_id in reply[1]]
            elif reply[0] < TRIM_BATCH:
                return Trimmed(trimmed, bool(reply[2]))


def _team_books(team: str) -> tuple[str, ...]:
    """The keys that ``read_books.lua`` reads of the team itself."""
    return (
        key_names.leases(team),
        key_names.checkpoint(team),
        key_names.ledger(team),
        key_names.team_keys(team),
        key_names.team_record(team),
        key_names.team_usage(team),
        key_names.key_checkpoint(team, ""),
    )


def _key_books(reply: list[Any]) -> KeyBooks:
    key_id, record, usage, checkpoint, reservations, by_day = reply
    units = {records.utc_day(day * records.DAY_MS): held for day, held in zip(by_day[::2], by_day[1::2], strict=True)}
    counters, charged, trimmed = (records.fields_from_pairs(pairs) for pairs in (record, usage, checkpoint))
    held = None if reservations < 0 else reservations
    first_day = charged.pop(FIRST_DAY, None)
    return KeyBooks(key_id.decode(), counters, charged, trimmed, first_day, held, units)
