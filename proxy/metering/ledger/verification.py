"""Rebuilding a gateway's counters from its ledger: for ``lightmeter ledger verify``, and for the console."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from proxy.domain.billing.books import Books, Difference, compare
from proxy.metering.ledger.reading import Read, StreamId, stream_id
from proxy.metering.ledger.user_verification import USERS_COMPARED, UserAudit
from proxy.metering.redis_store.facts import utc_day

TRIES = 3
LEDGER_PAGE = 1_000
TEAMS_PAGE = "1000"
DIGEST_BYTES = 8
"""Of each request's id, to see that none is charged twice: some 70 bytes of memory a request."""


class VerificationError(Exception):
    """The books could not be read; the message says why."""


class Audit:
    """Compares what the store counts with what the ledger adds up to, one team after another.

    The counters of some fifty keys are read at one moment, together with the id of the ledger's last entry. Entries
    after that are no part of the comparison, so that it is exact while requests come in.
    """

    def __init__(self, read: Read, *, ledger_page: int = LEDGER_PAGE, entries_limit: int | None = None) -> None:
        """Nothing has been looked at. What ``read`` asks for has pages of ``ledger_page`` entries.

        Of a team with more than ``entries_limit`` entries, the books are not read to their end (VerificationError).
        """
        self._read = read
        self._ledger_page = ledger_page
        self._entries_limit = entries_limit
        self.team = ""
        self.differences: list[Difference] = []
        self.over_limit: list[str] = []
        self.teams = 0
        self.keys = 0
        self.entries = 0
        self.expired = 0
        self.late = 0
        self.lost_reservations = 0
        self.not_compared: list[str] = []
        self.users_not_compared = 0

    async def run(self, team: str | None) -> AsyncIterator[None]:
        """Look at one team, or at all; from time to time whoever iterates may look at how far it is.

        Raises VerificationError, and what reading raises.
        """
        if team:
            # Of a team that does not exist, every counter would be right.
            await self._read(f"teams/{quote(team, safe='')}", {})
            async for _ in self._look_at(team):
                yield
            return
        async for each in self._teams():
            async for _ in self._look_at(each):
                yield

    def report(self) -> dict[str, Any]:
        """Everything, for scripts."""
        return {
            "ok": not self.differences,
            "differences": [asdict(each) for each in self.differences],
            "teams": self.teams,
            "keys": self.keys,
            "entries": self.entries,
            "expired": self.expired,
            "late": self.late,
            "lost_reservations": self.lost_reservations,
            "over_limit": self.over_limit,
            "not_compared": self.not_compared,
            "users_not_compared": self.users_not_compared,
        }

    def summary(self) -> Iterator[str]:
        """The same in words."""
        right = f"{len(self.differences):,} difference(s)" if self.differences else "every counter is right"
        yield f"{self.keys:,} key(s) of {self.teams:,} team(s), {self.entries:,} ledger entries: {right}"
        if self.expired:
            yield f"{self.expired:,} request(s) ended as expired: their gateway died while it held them"
        if self.late:
            yield f"{self.late:,} settlement(s) came after their lease had expired"
        if self.lost_reservations:
            yield f"{self.lost_reservations:,} settlement(s) found that the store had lost their reservation"
        for team in self.not_compared:
            yield f"{team} holds too many reservations to compare them at one moment: what is reserved was not compared"
        if self.users_not_compared:
            yield f"{self.users_not_compared:,} request(s) of end users beyond the first {USERS_COMPARED:,} of a team"
        for key_id in self.over_limit:
            yield f"{key_id} has used more than its limit without overage: the limit was lowered, or grants taken back"

    async def _look_at(self, team: str) -> AsyncIterator[None]:
        self.team = team
        before = self.entries
        for _ in range(TRIES):
            one = _TeamAudit(team, self._read, self._ledger_page)
            await one.read_counters()
            yield
            async for _page in one.read_ledger():
                self.entries = before + one.entries
                if self._entries_limit is not None and one.entries > self._entries_limit:
                    raise VerificationError(
                        f"{team} has more than {self._entries_limit:,} entries: "
                        f"'lightmeter ledger verify --team {team}' compares them in a process of its own"
                    )
                yield
            if not await one.was_trimmed_meanwhile():
                break
        else:
            raise VerificationError(f"the ledger of {team} was trimmed while it was read: try again")
        self.differences += [each async for each in one.differences()]
        async for differences in one.users.differences(max(map(stream_id, one.trimmed))):
            self.differences += differences
            yield
        self.users_not_compared += one.users.not_compared
        self.over_limit += one.over_limit()
        self.teams += 1
        self.keys += len(one.found) - 1
        self.entries = before + one.entries
        self.expired += one.expired
        self.late += one.late
        self.lost_reservations += one.lost_reservations
        if one.held_is_unknown:
            self.not_compared.append(team)

    async def _teams(self) -> AsyncIterator[str]:
        async for page in _pages(self._read, "ledger/books", limit=TEAMS_PAGE):
            for each in page["data"]:
                yield each["team"]


class _TeamAudit:
    def __init__(self, team: str, read: Read, ledger_page: int) -> None:
        self.team = team
        self._read = read
        self._ledger_page = ledger_page
        self.found: dict[str, Books] = {}
        self.rebuilt: dict[str, Books] = {}
        self.as_of: dict[str, StreamId] = {}
        self.last: StreamId = (0, 0)
        self.limits: dict[str, int | None] = {}
        self.held_units: dict[str, dict[str, int]] = {}
        self.held_is_unknown = False
        self.usage_from: dict[str, str] = {}
        self.windows: dict[str, list[str]] = defaultdict(list)
        self.trimmed: set[str] = set()
        self.strays: set[str] = set()
        self.unknown: set[str] = set()
        self.users = UserAudit(team, read, ledger_page)
        self.twice: list[str] = []
        self.entries = self.expired = self.late = self.lost_reservations = 0

    async def read_counters(self) -> None:
        async for page in _pages(self._read, f"ledger/books/{self.team}"):
            self.last = max(self.last, stream_id(page["as_of"]))
            self.trimmed.add(page["trimmed"])
            self.strays.update(page["stray_leases"])
            for key in page["data"]:
                self._take(key, stream_id(page["as_of"]))

    def _take(self, key: dict[str, Any], as_of: StreamId) -> None:
        found = Books(**key["counters"])
        found.usage.update(key["usage"])
        if key["held"] is None:
            self.held_is_unknown = True
        held = key["held"] or {"quota_units": {}, "reservations": 0}
        held_units = held["quota_units"]
        rebuilt = Books(reserved=sum(held_units.values()), held=held["reservations"])
        for name, value in key["checkpoint"].items():
            if name.startswith("usage:"):
                rebuilt.usage[name.removeprefix("usage:")] += value
            else:
                setattr(rebuilt, name, value)
        self.found[key["id"]], self.rebuilt[key["id"]] = found, rebuilt
        self.as_of[key["id"]], self.limits[key["id"]] = as_of, key["quota_units"]
        self.held_units[key["id"]], self.usage_from[key["id"]] = held_units, key["usage_from"] or ""
        for window, counts in key["windows"].items():
            found.windows.update({f"{window} {name}": count for name, count in counts.items()})
            self.windows[key["id"]].append(window)

    async def read_ledger(self) -> AsyncIterator[None]:
        seen: set[tuple[str, bytes]] = set()
        cursor = None
        while True:
            query = {"team": self.team, "cursor": cursor, "limit": str(self._ledger_page)}
            page = await self._read("ledger", query)
            for entry in page["data"]:
                self._add(entry, seen)
            self.users.page_read(page, self.last)
            yield
            cursor = page["next_cursor"]
            if cursor is None or stream_id(cursor) >= self.last:
                return

    def _add(self, entry: dict[str, Any], seen: set[tuple[str, bytes]]) -> None:
        at, key_id = stream_id(entry["id"]), entry["key"] or self.team
        self.users.add(entry)
        # A grant to a key is the key's alone.
        counted = {key_id} if entry["kind"] == "grant" else {key_id, self.team}
        for account in counted & self.rebuilt.keys():
            if at <= self.as_of[account]:
                self.rebuilt[account].add(entry, utc_day(entry.get("admitted_ms", 0)))
        if at > self.as_of.get(key_id, self.last):
            return
        self.entries += 1
        if key_id not in self.rebuilt:
            self.unknown.add(key_id)
        self.expired += entry.get("outcome") == "expired"
        self.late += entry["kind"] == "late"
        self.lost_reservations += entry.get("reservation") == "lost"
        if entry["kind"] in ("request", "late"):
            name = (entry["kind"], blake2b(entry["request"].encode(), digest_size=DIGEST_BYTES).digest())
            if name in seen:
                self.twice.append(entry["request"])
            seen.add(name)

    async def was_trimmed_meanwhile(self) -> bool:
        page = await self._read(f"ledger/books/{self.team}", {"limit": "1"})
        return self.trimmed != {page["trimmed"]}

    async def differences(self) -> AsyncIterator[Difference]:
        for key_id, found in self.found.items():
            for window in self.windows[key_id]:
                self.rebuilt[key_id].count_window(window, self.held_units[key_id])
            for books in (found, self.rebuilt[key_id]):
                books.fold_before(self.usage_from[key_id])
            if self.held_is_unknown:
                self.rebuilt[key_id].take_reserved(found)
            for difference in compare(self.team, key_id, found, self.rebuilt[key_id]):
                yield difference
        for request in self.twice:
            yield Difference(self.team, self.team, f"entries of request {request}", 2, 1)
        for reservation in sorted(self.strays):
            yield Difference(self.team, self.team, f"reservations of the lease {reservation}", 0, 1)
        if self.unknown:
            # Some may have been made after the counters were read.
            pages = _pages(self._read, f"ledger/books/{self.team}")
            there = {key["id"] async for page in pages for key in page["data"]}
            for key_id in sorted(self.unknown - there):
                yield Difference(self.team, key_id, "keys of this id", 0, 1)

    def over_limit(self) -> Iterator[str]:
        for key_id, limit in self.limits.items():
            books = self.found[key_id]
            if limit is not None and books.posted - books.overage + books.reserved > limit + books.granted:
                yield key_id


async def _pages(read: Read, path: str, *, limit: str | None = None) -> AsyncIterator[dict[str, Any]]:
    cursor = None
    while True:
        page = await read(path, {"cursor": cursor, "limit": limit})
        yield page
        cursor = page["next_cursor"]
        if cursor is None:
            return
