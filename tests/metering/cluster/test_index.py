"""The index of teams on a Cluster: in the order of their ids, whatever parts they are in."""

from __future__ import annotations

import pytest

from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.redis.cluster.slots import SLOTS, slot_of_key
from proxy.metering.redis.pool import ask, reads_of
from proxy.metering.redis_store import team_index
from proxy.metering.redis_store.keys import TEAMS, team_record
from proxy.metering.redis_store.team_index import TeamIndex
from tests.metering.conftest import Bench
from tests.support.clusters import Cluster


def test_a_part_lies_where_its_teams_do() -> None:
    for number in range(300):
        slot = slot_of_key(team_record(f"team-{number}"))
        part = team_index._part(slot * team_index.PARTS // SLOTS)
        assert slot_of_key(part) * team_index.PARTS // SLOTS == slot * team_index.PARTS // SLOTS
    assert len({team_index._part(number) for number in range(team_index.PARTS)}) == team_index.PARTS


@pytest.mark.parametrize("count", [1, 3, 64, 1_000])
async def test_pages_are_in_order_and_complete(bench: Bench, count: int) -> None:
    index = TeamIndex(reads_of(bench.pool))
    names = sorted(f"team-{number}" for number in range(150))
    for name in names[:120]:
        await index.enter(name)
    # As a server has them that became a Cluster; some have been entered again since.
    for name in names[100:]:
        await ask(reads_of(bench.pool), "ZADD", TEAMS, 0, name)
    found: list[str] = []
    while page := await index.after(found[-1] if found else None, count=count):
        assert len(page) == min(count, 150 - len(found))
        found += page
        if count == 1 and len(found) == 5:
            break
    assert found == names[: len(found)]
    assert len(found) == (5 if count == 1 else 150)
    assert await index.after(names[7], inclusive=True, count=2) == names[7:9]
    assert await index.after(None, count=200, prefix="team-14") == [
        name for name in names if name.startswith("team-14")
    ]


async def test_teams_that_share_a_part_are_all_listed(bench: Bench, cluster: Cluster) -> None:
    index = TeamIndex(reads_of(bench.pool))
    first, last = 0, SLOTS // team_index.PARTS - 1
    crowd = sorted(name for number in range(4_000) if first <= slot_of_key(team_record(name := f"c-{number}")) <= last)
    assert len(crowd) > 40
    for name in [*crowd, "a", "z"]:
        await index.enter(name)
    assert await index.after(None, count=1_000) == ["a", *crowd, "z"]
    assert await index.after(None, count=30) == ["a", *crowd[:29]]
    books = LedgerBooks(bench.runner, bench.pool, bench.store)
    (crowded,) = [part for part in books.team_parts if len((await books.teams_of(part, limit=100)).items) > 30]
    page = await books.teams_of(crowded, limit=10)
    assert page.next_cursor == page.items[-1]
    assert (await books.teams_of(crowded, cursor=page.next_cursor, limit=100)).next_cursor is None
