"""Statements in the store: each month of a team's ledger, written down once it has ended."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from math import inf
from time import monotonic
from typing import Any
from weakref import WeakValueDictionary

import orjson

from proxy.domain.billing.statements import (
    NO_ENTRY,
    Statement,
    StatementBook,
    checkpoint_figures,
    position_of,
)
from proxy.domain.errors import NotFound, StillCounting, StoreBusy
from proxy.domain.money import NO_MONEY, Money
from proxy.metering.redis.pool import StorePool, ask, read_hash, reads_of
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store import facts as records
from proxy.metering.redis_store import keys as key_names
from proxy.metering.redis_store.store import RedisStore

ENTRIES_A_READ = 500

ENTRIES_A_STEP = 20_000
"""After which what has been counted is written down: whoever asks again goes on from there."""

ANSWER_WITHIN_S = 20.0
"""Whoever asks for a statement is told after so long that more is left to count; it is less than clients wait."""

TRIES = 20
"""Of one step, where others state or trim the same team's ledger meanwhile."""


class _Step(Enum):
    """What came of one: all is counted, there is more, or somebody else was quicker."""

    DONE = "done"
    MORE = "more"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Stated:
    """A statement of ``team``; one that is open, ``stated_ms`` is None, still grows.

    ``money`` is what a unit was worth when its month was stated.
    """

    team: str
    statement: Statement
    stated_ms: int | None
    money: Money


class Statements:
    """The statements of all teams. Everything here raises StoreUnavailable where Redis cannot be asked."""

    def __init__(self, runner: ScriptRunner, pool: StorePool, store: RedisStore, money: Money = NO_MONEY) -> None:
        """Write through scripts on ``runner``, read through ``pool``; ``store`` reclaims what expired leases hold.

        Statements say what a unit is worth in ``money`` on the day that they are made.
        """
        self._runner = runner
        self._redis = reads_of(pool)
        self._store = store
        self._money = money
        self._counting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def read(self, team: str, month: str) -> Stated:
        """The statement of ``month``, ``YYYY-MM``; that of this month as far as it has come.

        Raises NotFound, or StillCounting.
        """
        now_ms = await self.advance(team, within_s=ANSWER_WITHIN_S)
        kept, book = await ask(self._redis, "HMGET", key_names.statements(team), month, "book")
        if kept is not None:
            return _stated(team, orjson.loads(kept))
        is_open = self._open(team, book, now_ms)
        if is_open.statement.month == month:
            return is_open
        raise NotFound(f"There is no statement of '{team}' for {month}: its ledger has nothing of then.")

    async def list_all(self, team: str) -> list[Stated]:
        """All of a team, from the first to the one that is open. Raises StillCounting."""
        now_ms = await self.advance(team, within_s=ANSWER_WITHIN_S)
        fields = await read_hash(self._redis, key_names.statements(team))
        months = sorted(name for name in fields if name[:1].isdigit())
        stated = [_stated(team, orjson.loads(fields[month])) for month in months]
        return [*stated, self._open(team, fields.get(b"book"), now_ms)]

    async def advance(self, team: str, *, age_ms: int = 0, within_s: float | None = None) -> int:
        """Count what is older than ``age_ms``, and state the months that had ended then; the store's time, also in ms.

        Raises StillCounting where that takes longer than ``within_s``; what was counted is kept. Raises StoreBusy where
        others do so all the time.
        """
        ends_s = inf if within_s is None else monotonic() + within_s
        now_ms = (await self._store.reclaim(team)).now_us // 1_000
        # Of many who ask at once, one counts; the others would do the same work, and throw it away.
        counting = self._counting.setdefault(team, asyncio.Lock())
        try:
            async with asyncio.timeout(within_s):
                await counting.acquire()
        except TimeoutError:
            raise StillCounting(team) from None
        try:
            await self._count_all(team, now_ms - age_ms, ends_s)
        finally:
            counting.release()
        return now_ms

    async def _count_all(self, team: str, until_ms: int, ends_s: float) -> None:
        tries = 0
        while True:
            step = await self._step(team, until_ms)
            if step is _Step.DONE:
                return
            tries = tries + 1 if step is _Step.MOVED else 0
            if tries == TRIES:
                raise StoreBusy
            if monotonic() > ends_s:
                raise StillCounting(team)

    async def _step(self, team: str, until_ms: int) -> _Step:
        kept, version = await ask(self._redis, "HMGET", key_names.statements(team), "book", "version")
        trimmed = (await ask(self._redis, "HGET", key_names.checkpoint(team), "last") or NO_ENTRY.encode()).decode()
        book = None if kept is None else StatementBook.from_json(orjson.loads(kept))
        before = None if book is None else (book.open.month, book.open.to)
        if position_of(trimmed) > position_of(NO_ENTRY if book is None else book.open.to):
            month = _month(position_of(trimmed)[0])
            book = book or StatementBook.begin(month)
            fields = await read_hash(self._redis, key_names.key_checkpoint(team, ""))
            sums: Counter[str] = Counter()
            for name, value in checkpoint_figures(records.texts(fields.items())):
                sums[name] += value
            book.bring_forward(sums, to=trimmed, month=month)
        book, is_all = await self._count(team, book, until_ms)
        if book is None:
            return _Step.DONE
        if is_all:
            book.close_before(_month(until_ms))
        if before == (book.open.month, book.open.to):
            return _Step.DONE
        months = [word for each in book.closed for word in (each.month, self._as_stated(each, until_ms))]
        reply = await self._runner.run(
            load_script("state"),
            (key_names.statements(team), key_names.checkpoint(team)),
            (f"state_{secrets.token_hex(12)}", version or 0, trimmed, orjson.dumps(book.as_json()), *months),
        )
        if reply[0] == b"moved":
            return _Step.MOVED
        return _Step.DONE if is_all else _Step.MORE

    async def _count(self, team: str, book: StatementBook | None, until_ms: int) -> tuple[StatementBook | None, bool]:
        """Add what has been written since; and whether that was all of it."""
        for _ in range(ENTRIES_A_STEP // ENTRIES_A_READ):
            start = "-" if book is None or book.open.to == NO_ENTRY else f"({book.open.to}"
            batch = await ask(self._redis, "XRANGE", key_names.ledger(team), start, until_ms, "COUNT", ENTRIES_A_READ)
            for stream_id, fields in batch:
                entry = records.entry_from_stream(team, stream_id.decode(), records.texts(fields.items()))
                written = _month(entry.at_ms)
                book = book or StatementBook.begin(written)
                book.add(entry, written=written, admitted=_month(entry.facts.get("admitted_ms", entry.at_ms)))
            if len(batch) < ENTRIES_A_READ:
                return book, True
        return book, False

    def _open(self, team: str, book: bytes | None, now_ms: int) -> Stated:
        """The statement of a team that still grows: without a book, an empty one of this month."""
        kept = StatementBook.begin(_month(now_ms)) if book is None else StatementBook.from_json(orjson.loads(book))
        return Stated(team, kept.open, None, self._money)

    def _as_stated(self, statement: Statement, now_ms: int) -> bytes:
        worth = self._money.units_per_usd
        return orjson.dumps(
            {
                "statement": statement,
                "stated_ms": now_ms,
                "units_per_usd": None if worth is None else f"{worth:f}",
            }
        )


def _stated(team: str, kept: dict[str, Any]) -> Stated:
    worth = kept["units_per_usd"]
    money = Money(None if worth is None else Decimal(worth))
    return Stated(team, Statement(**kept["statement"]), kept["stated_ms"], money)


def _month(at_ms: int) -> str:
    """The UTC month of a moment, ``YYYY-MM``."""
    return records.utc_day(at_ms)[: records.MONTH_LENGTH]
