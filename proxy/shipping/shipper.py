"""The walk over all teams' ledgers, again and again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import partial
from time import monotonic, time
from typing import TypeVar

from proxy.shipping.batch import NO_ENTRY, Batch, place_of
from proxy.shipping.errors import PlaceMoved, ShippingError, Unavailable
from proxy.shipping.sink import Sink
from proxy.shipping.source import Head, Source

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
LONGEST_ASKED_WAIT_S = 600.0
"""However long a destination asks to be left alone."""

LOOKING_SHARE = 4
"""So many times as long as it takes to look at all heads, nobody looks at them: each is work of the gateway."""


TRIMMED, LOST = "trimmed", "lost"
"""Kinds of losses."""


@dataclass(slots=True)
class Totals:
    """What was done since the start. ``duplicates`` are entries that the destination had already."""

    entries: int = 0
    duplicates: int = 0
    batches: int = 0
    walks: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, how much and how patiently.

    A walk begins ``every_s`` after the one before. An entry is left alone until it is ``min_age_s`` old: what a crash
    of the store takes back is younger, and would be posted again under another id. A batch has ``batch_entries`` at
    the most. Who is away may be so for ``patience_s``; None is for ever.
    """

    every_s: float = 5.0
    min_age_s: float = 5.0
    batch_entries: int = 1_000
    patience_s: float | None = None


class _StoppedError(Exception):
    """Somebody asked for it."""


class Shipper:
    """Copies what ``source`` has to ``sink``."""

    def __init__(self, source: Source, sink: Sink, pace: Pace) -> None:
        """Nothing is read yet."""
        self._source = source
        self._sink = sink
        self._pace = pace
        self._batch = Batch()
        self._stopping = asyncio.Event()
        self._units_per_usd: Decimal | None = None
        self._looking_s = 0.0
        self._losses: Counter[str] = Counter()
        self._first_loss: dict[str, str] = {}
        self._told: Counter[str] = Counter()
        self.totals = Totals()

    def stop(self) -> None:
        """Write the batch that is under way, and end."""
        self._stopping.set()

    async def run(self, *, once: bool) -> None:
        """Ship until ``stop``, or with ``once`` all that was there at the start. Raises ShippingError."""
        try:
            if once:
                await self._pause(self._pace.min_age_s)
            while not (await self._walk() and once):
                await self._pause(max(self._pace.every_s, LOOKING_SHARE * self._looking_s))
        except _StoppedError:
            pass

    async def _walk(self) -> bool:
        """Look at each team once; whether all were seen to their ends."""
        before = asdict(self.totals)
        self._looking_s, self._losses, self._first_loss = 0.0, Counter(), {}
        self._units_per_usd = await self._patiently(self._source.units_per_usd)
        cursor, read_ms, whole = None, None, True
        while True:
            began = monotonic()
            page = await self._patiently(partial(self._source.heads, cursor))
            self._looking_s += monotonic() - began
            read_ms = min(head.read_ms for head in page.heads) if page.heads and read_ms is None else read_ms
            try:
                await self._ship_page(page.heads)
            except PlaceMoved as moved:
                logger.warning("the destination is at another place (%s); its teams are looked at again", moved)
                whole = False
            cursor = page.next_cursor
            if cursor is None:
                break
        self.totals.walks += 1
        if whole:
            caught_up_ms = (int(time() * 1000) if read_ms is None else read_ms) - int(self._pace.min_age_s * 1000)
            await self._patiently(lambda: self._source.report((), caught_up_ms))
        self._tell(before)
        return whole

    async def _ship_page(self, heads: Sequence[Head]) -> None:
        places = await self._patiently(lambda: self._sink.places(heads))
        self._batch.clear()
        # Before what is newer: a report was lost, or the destination is at an earlier state, which may be none.
        unknown = [
            places.get(head.team, f"{head.team}_{NO_ENTRY}") for head in heads if places.get(head.team) != head.shipped
        ]
        if unknown:
            await self._patiently(lambda: self._source.report(unknown))
        for head in heads:
            place = places.get(head.team)
            self._look_for_losses(head, place)
            if place_of(head.last) > place_of(place):
                await self._ship_team(head, place)
        await self._flush()

    async def _ship_team(self, head: Head, after: str | None) -> None:
        youngest_ms = head.read_ms - int(self._pace.min_age_s * 1000)
        while True:
            page = await self._patiently(partial(self._source.entries, head.team, after))
            for entry in page.entries:
                if place_of(entry["id"])[0] > youngest_ms:
                    return
                self._batch.add(entry, after)
                after = entry["id"]
                if len(self._batch.entries) >= self._pace.batch_entries:
                    await self._flush()
            if not page.more:
                return

    async def _flush(self) -> None:
        if not self._batch.entries:
            return
        batch = self._batch
        duplicates = await self._patiently(lambda: self._sink.write(batch, self._units_per_usd))
        self.totals.entries += len(batch.entries) - duplicates
        self.totals.duplicates += duplicates
        self.totals.batches += 1
        await self._patiently(lambda: self._source.report(batch.ends.values()))
        batch.clear()
        if self._stopping.is_set():
            raise _StoppedError

    # --- What is noticed on the way -----------------------------------------------------------------------------------

    def _look_for_losses(self, head: Head, place: str | None) -> None:
        if place_of(head.trimmed) > place_of(place):
            self._lose(
                TRIMMED,
                f"entries of {head.team} up to {head.trimmed} were trimmed before they were shipped, those after "
                f"{place or 'its beginning'}: only their sums are left, in the gateway's checkpoint",
            )
        if place_of(place) > place_of(head.last):
            self._lose(
                LOST,
                f"the ledger of {head.team} ends with {head.last or 'none'}, and the destination has {place}: "
                "the store has lost entries",
            )

    def _lose(self, kind: str, message: str) -> None:
        self._losses[kind] += 1
        self._first_loss.setdefault(kind, message)

    def _tell(self, before: Mapping[str, int]) -> None:
        if self.totals.walks == 1:
            logger.info("the first of the walks over all teams has ended")
        if self.totals.entries > before["entries"] or self.totals.duplicates > before["duplicates"]:
            logger.info(
                "%d entries shipped, %d were there already; %d since the start",
                self.totals.entries - before["entries"],
                self.totals.duplicates - before["duplicates"],
                self.totals.entries,
            )
        for kind, count in self._losses.items():
            # Walk for walk the same is told once.
            if count != self._told[kind]:
                logger.error("%s (%d teams in all)", self._first_loss[kind], count)
        self._told = self._losses

    # --- Patience -----------------------------------------------------------------------------------------------------

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """What ``call`` answers, asked again with growing pauses while it is away."""
        since, wait_s, told = monotonic(), FIRST_WAIT_S, ""
        while True:
            try:
                answer = await call()
            except Unavailable as error:
                away_s = monotonic() - since
                if self._pace.patience_s is not None and away_s >= self._pace.patience_s:
                    raise ShippingError(f"{error}; given up after {away_s:.0f} s") from None
                if str(error) != told:
                    logger.warning("%s; it is tried again", error)
                    told = str(error)
                # Several shippers that one fault has stopped do not come back together.
                pause_s = wait_s * random.uniform(0.5, 1)  # noqa: S311 - no secret
                await self._pause(max(pause_s, min(error.wait_s or 0, LONGEST_ASKED_WAIT_S)))
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                if told:
                    logger.info("it goes on, after %.0f s", monotonic() - since)
                return answer

    async def _pause(self, seconds: float) -> None:
        """Wait, but for a stop. Raises _StoppedError."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise _StoppedError
