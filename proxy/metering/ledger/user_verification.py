"""Whether what each end user has used is what the ledger adds up to, where keys and teams limit each user.

An entry says in ``per_user`` which of the counters of its user it stands in, so that limits may come and go. Counters
are of a day and a month that are not over, from the day ``since`` on; what was trimmed is not compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from time import time
from typing import Any

from proxy.domain.billing.books import Difference
from proxy.metering.ledger.reading import Read, StreamId, stream_id
from proxy.metering.redis_store.facts import DAY_MS, MONTH_LENGTH, utc_day
from proxy.metering.redis_store.keys import user_id

USERS_COMPARED = 10_000
"""Of a team, in this month: each takes some hundred bytes of memory, and a fiftieth of a call."""

USERS_A_CALL = 50

DAYS_COMPARED = 40
"""More than a month has."""

User = tuple[str, str]
"""The id of a key, or of a team, and the name of an end user of it."""


class UserAudit:
    """The charges of the end users of one team, by UTC day."""

    def __init__(self, team: str, read: Read, ledger_page: int) -> None:
        """Nothing has been read. What ``read`` asks for has pages of ``ledger_page`` entries."""
        self._team = team
        self._read = read
        self._ledger_page = ledger_page
        self._oldest_ms = int(time() * 1_000) - DAYS_COMPARED * DAY_MS
        self._charges: dict[User, Counter[str]] = {}
        self._ahead: list[tuple[StreamId, User, str, int]] = []
        self._cursor: str | None = None
        self.not_compared = 0

    def add(self, entry: Mapping[str, Any]) -> None:
        """One ledger entry; they come in their order."""
        if not entry.get("per_user") or entry["admitted_ms"] < self._oldest_ms:
            return
        day = utc_day(entry["admitted_ms"])
        for account in _accounts(entry, self._team):
            user = (account, entry.get("user", ""))
            self._ahead.append((stream_id(entry["id"]), user, day, entry["charged"]))

    def page_read(self, page: Mapping[str, Any], as_of: StreamId) -> None:
        """A page of the ledger has been added; what is older than ``as_of`` is settled."""
        self._cursor = page["next_cursor"] or page["resume_cursor"] or self._cursor
        self._take(as_of)

    def _take(self, as_of: StreamId) -> None:
        """Add up the entries until ``as_of``."""
        taken = 0
        for at, user, day, charged in self._ahead:
            if at > as_of:
                break
            taken += 1
            if user not in self._charges:
                if len(self._charges) >= USERS_COMPARED:
                    self.not_compared += 1
                    continue
                self._charges[user] = Counter()
            self._charges[user][day] += charged
        del self._ahead[:taken]

    async def differences(self, trimmed: StreamId) -> AsyncIterator[list[Difference]]:
        """Where the store counts something else, some users at a time.

        ``trimmed`` is the last entry taken out of the ledger.
        """
        users = list(self._charges)
        for start in range(0, len(users), USERS_A_CALL):
            some = users[start : start + USERS_A_CALL]
            of = ",".join(f"{account}:{user_id(user)}" for account, user in some)
            page = await self._read(f"ledger/books/{self._team}/users", {"of": of})
            await self._read_until(stream_id(page["as_of"]))
            found: list[Difference] = []
            for user, counters in zip(some, page["data"], strict=True):
                found += self._compare(user, counters, page, trimmed)
            yield found

    async def _read_until(self, as_of: StreamId) -> None:
        """Go on with the ledger: the counters were read later than those of the keys."""
        while self._cursor is not None and stream_id(self._cursor) < as_of:
            query = {"team": self._team, "cursor": self._cursor, "limit": str(self._ledger_page)}
            page = await self._read("ledger", query)
            for entry in page["data"]:
                self.add(entry)
            self._cursor = page["next_cursor"] or page["resume_cursor"] or self._cursor
            if page["next_cursor"] is None:
                break
        self._take(as_of)

    def _compare(
        self, user: User, counters: Mapping[str, int] | None, page: Mapping[str, Any], trimmed: StreamId
    ) -> Iterator[Difference]:
        account, name = user
        by_day = self._charges[user]

        def compare(counter: str, found: int, should_be: int) -> Iterator[Difference]:
            if found != should_be:
                yield Difference(self._team, account, f"user '{name}' {counter}", found, should_be)

        if counters is None:
            # They may be over but for those of today.
            yield from compare(page["today"], 0, by_day[page["today"]])
            return
        since = utc_day(counters["since"] * DAY_MS)
        for window, length in (("day", len(since)), ("month", MONTH_LENGTH)):
            first = counters[window] * DAY_MS
            heading = utc_day(first)[:length]
            if trimmed < (max(first, counters["since"] * DAY_MS), 0):
                charged = sum(units for day, units in by_day.items() if day >= since and day.startswith(heading))
                yield from compare(f"{heading} posted", counters[f"{window}_posted"], charged)
            if not page["leases"]:
                yield from compare(f"{heading} reserved", counters[f"{window}_reserved"], 0)
        if not page["leases"]:
            yield from compare("held", counters["held"], 0)


def _accounts(entry: Mapping[str, Any], team: str) -> Iterator[str]:
    """Where the entry's user has counters that it stands in."""
    per_user = entry.get("per_user")
    if per_user in ("key", "both"):
        yield entry["key"]
    if per_user in ("team", "both"):
        yield team
