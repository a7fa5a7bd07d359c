"""Reading a stream that each team has: whatever is written between two pages, every entry is seen exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest
from fakeredis import FakeAsyncRedis
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from proxy.domain.errors import InvalidRequest
from proxy.metering.ledger import walk as stream_walk
from proxy.metering.ledger.walk import Place, Span, StreamPage, StreamWalk
from proxy.metering.redis.pool import StoreReads, reads_of
from proxy.metering.redis_store import keys as key_names
from tests.metering.conftest import Bench
from tests.support.examples import examples

TEAMS = st.sampled_from(["a", "acme", "b", "c-1", "research", "z9"])
STEPS = st.lists(st.tuples(TEAMS, st.integers(0, 3)) | st.integers(1, 4), max_size=40)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_walk, "TEAMS_LIMIT", 2)
    monkeypatch.setattr(stream_walk, "ENTRIES_LIMIT", 3)


def entry_id(team: str, stream_id: str, _fields: Mapping[bytes, bytes]) -> str | None:
    return f"{team}_{stream_id}"


class Reader:
    """Reads on and on, and notes what it has seen."""

    def __init__(self, redis: StoreReads, team: str | None = None) -> None:
        self._walk: StreamWalk[str] = StreamWalk(redis, key_names.ledger)
        self._team = team
        self._cursor: str | None = None
        self.seen: list[str] = []

    async def read(self, limit: int) -> StreamPage[str]:
        page = await self._walk.read(self._team, Span(), cursor=self._cursor, limit=limit, convert=entry_id)
        assert len(page.items) <= limit
        assert page.next_cursor is None or page.resume_cursor is None
        self._cursor = page.next_cursor or page.resume_cursor or self._cursor
        self.seen += page.items
        return page

    async def read_to_the_end(self) -> None:
        while (await self.read(4)).next_cursor is not None:
            pass


async def write(redis: Redis, team: str, count: int) -> list[str]:
    await redis.zadd(key_names.TEAMS, {team: 0})
    written = []
    for _ in range(count):
        stream_id = await redis.xadd(key_names.ledger(team), {"n": 1})
        assert isinstance(stream_id, bytes)
        written.append(f"{team}_{stream_id.decode()}")
    return written


async def play(redis: Redis, steps: list[tuple[str, int] | int]) -> tuple[list[str], Reader, Reader]:
    """What was written, and who read it meanwhile: everybody's ledger, and one team's."""
    written: list[str] = []
    everybody, acme = Reader(redis), Reader(redis, "acme")
    for step in steps:
        if isinstance(step, int):
            await everybody.read(step)
            await acme.read(step)
        else:
            written += await write(redis, *step)
    # A walk ends where it found its end to be; the one after it sees the rest.
    for _ in range(2):
        await everybody.read_to_the_end()
    await acme.read_to_the_end()
    return written, everybody, acme


@examples(40, deadline=5_000)
@given(STEPS)
def test_unit_every_entry_is_seen_exactly_once(steps: list[tuple[str, int] | int]) -> None:
    async def run() -> tuple[list[str], Reader, Reader]:
        redis = FakeAsyncRedis()
        try:
            return await play(redis, steps)
        finally:
            await redis.aclose()

    written, everybody, acme = asyncio.run(run())
    assert sorted(everybody.seen) == sorted(written)
    assert acme.seen == [entry for entry in written if entry.startswith("acme_")]


async def test_every_entry_is_seen_exactly_once_while_writers_write(bench: Bench) -> None:
    written: list[str] = []

    async def keep_writing(team: str) -> None:
        for _ in range(60):
            written.extend(await write(bench.redis, team, 1))
            await asyncio.sleep(0)

    everybody = Reader(reads_of(bench.pool))
    writers = [asyncio.create_task(keep_writing(team)) for team in ("a", "b", "m", "y", "z")]
    while not all(writer.done() for writer in writers):
        await everybody.read(3)
    for _ in range(2):
        await everybody.read_to_the_end()
    assert sorted(everybody.seen) == sorted(written)


async def test_unit_an_entry_of_a_team_that_was_passed_comes_in_the_next_list() -> None:
    redis = FakeAsyncRedis()
    first = await write(redis, "research", 2)
    reader = Reader(redis)
    await reader.read_to_the_end()
    later = await write(redis, "acme", 1)
    await reader.read_to_the_end()
    assert reader.seen == [*first, *later]
    await reader.read_to_the_end()
    assert reader.seen == [*first, *later]
    await redis.aclose()


@pytest.mark.parametrize(
    ("team", "cursor"),
    [(None, "research_1700000000000-0"), ("acme", "research_1700000000000-0"), ("acme", "1.2..")],
)
async def test_unit_a_cursor_of_another_list_is_refused(team: str | None, cursor: str) -> None:
    walk: StreamWalk[str] = StreamWalk(FakeAsyncRedis(), key_names.ledger)
    with pytest.raises(InvalidRequest, match="'cursor' should be"):
        await walk.read(team, Span(), cursor=cursor, limit=1, convert=entry_id)


@pytest.mark.parametrize("cursor", ["0.", "17.18..", "17.18.acme.", "17.18.a-b.1700-2"])
def test_unit_a_cursor_is_read_as_it_was_written(cursor: str) -> None:
    assert str(Place.read(cursor)) == cursor


@pytest.mark.parametrize(
    "cursor", ["", "1", "1.2", "1.2.", "1.2.Acme.", "1..acme.", "a.2..", "1.2.acme.7", "1.2..1-1 "]
)
def test_unit_anything_else_is_no_cursor(cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        Place.read(cursor)


async def test_unit_the_teams_of_a_page_are_prepared_and_no_others() -> None:
    redis = FakeAsyncRedis()
    for team in ("a", "b", "c"):
        await write(redis, team, 1)
    prepared: list[list[str]] = []

    async def prepare(teams: object) -> None:
        assert isinstance(teams, list)
        prepared.append(teams)

    preparing: Callable[[object], Awaitable[None]] = prepare
    walk: StreamWalk[str] = StreamWalk(redis, key_names.ledger, preparing)
    page = await walk.read(None, Span(), cursor=None, limit=10, convert=entry_id)
    assert (len(page.items), prepared) == (2, [["a", "b"]])
    page = await walk.read(None, Span(), cursor=page.next_cursor, limit=10, convert=entry_id)
    assert (len(page.items), prepared[1:], page.next_cursor) == (1, [["c"]], None)
    await redis.aclose()


async def test_unit_a_team_that_is_made_while_a_walk_begins_is_seen_by_it_or_by_the_next() -> None:
    redis = FakeAsyncRedis()
    written: list[str] = []

    async def make_a_team(_teams: object) -> None:
        written.extend(await write(redis, f"team-{len(written)}", 1))

    walk: StreamWalk[str] = StreamWalk(redis, key_names.ledger, make_a_team)
    seen: list[str] = []
    cursor = None
    for _ in range(6):
        page = await walk.read(None, Span(), cursor=cursor, limit=10, convert=entry_id)
        seen += page.items
        cursor = page.next_cursor or page.resume_cursor
    assert len(set(seen)) == len(seen)
    assert set(written[:-1]) >= set(seen) >= set(written[:3])
    await redis.aclose()
