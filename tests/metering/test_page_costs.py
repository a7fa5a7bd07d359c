"""What a page of an admin list asks of the store does not grow with what the store holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from proxy.metering.accounts.team_figures import TeamFigures
from proxy.metering.ledger.audit_log import AuditLog
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.ledger.pages import LedgerFilter
from proxy.telemetry.metrics import Metrics
from tests.metering.conftest import Bench

FEW, MANY = 250, 1_000
"""Both are more teams than one page looks at."""


async def fill(bench: Bench, teams: range, *, keys: int = 1, revoked: bool = False) -> None:
    """Teams with keys, and with nothing in their ledgers."""
    pipe = bench.redis.pipeline(transaction=False)
    for number in teams:
        team = f"idle-{number:06d}"
        pipe.zadd("lm:teams", {team: 0})
        pipe.execute_command(
            "HSET", f"lm:{{{team}}}:team", "created_ms", 1, *(("revoked_ms", 2) if revoked else ("name", "x"))
        )
        for key in range(keys):
            key_id = f"{team}_{key:010d}"
            pipe.execute_command("HSET", f"lm:{{{team}}}:key:{key_id}", "created_ms", 1)
            pipe.zadd(f"lm:{{{team}}}:keys", {key_id: 0})
    await pipe.execute()


async def commands_of(bench: Bench, page: Awaitable[object]) -> int:
    """How many commands the store runs for a page, those of scripts among them."""
    before = await bench.redis.info("commandstats")
    await page
    after = await bench.redis.info("commandstats")
    return sum(
        stats["calls"] - before.get(name, {"calls": 0})["calls"]
        for name, stats in after.items()
        if name != "cmdstat_info"
    )


async def read_figures(bench: Bench) -> None:
    metrics = Metrics(label_teams=5)
    assert metrics.teams is not None
    await TeamFigures(bench.teams, metrics.teams, refresh_s=60).read()


PAGES: dict[str, Callable[[Bench], Awaitable[object]]] = {
    "ledger": lambda bench: bench.ledger.list_entries(LedgerFilter(), cursor=None, limit=1),
    "audit": lambda bench: AuditLog(bench.pool, bench.store).list_entries(None, since_ms=None, cursor=None, limit=1),
    "keys": lambda bench: bench.keys.page(None, cursor=None, limit=5),
    "teams": lambda bench: bench.teams.page(cursor=None, limit=5),
    "books": lambda bench: LedgerBooks(bench.runner, bench.pool, bench.store).teams(limit=5),
    "figures": read_figures,
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("kind", ["with keys", "without keys", "revoked"])
async def test_a_page_costs_the_same_beside_few_and_beside_many_teams(bench: Bench, page: str, kind: str) -> None:
    costs = []
    for teams in (range(FEW), range(FEW, MANY)):
        await fill(bench, teams, keys=int(kind == "with keys"), revoked=kind == "revoked")
        # The scripts are known to the store from here on, and a connection is open.
        await PAGES[page](bench)
        costs.append(await commands_of(bench, PAGES[page](bench)))
    few, many = costs
    assert many <= few
    assert many <= 700


async def test_a_page_of_one_team_s_ledger_costs_the_same_however_long_it_is(bench: Bench) -> None:
    await bench.redis.zadd("lm:teams", {"acme": 0})
    costs = []
    for _ in range(2):
        pipe = bench.redis.pipeline(transaction=False)
        for _ in range(1_500):
            pipe.xadd("lm:{acme}:ledger", {"kind": "grant", "key": "acme_0000000000", "quota_units": 0, "facts": "{}"})
        await pipe.execute()
        wanted = LedgerFilter(team="acme", outcome="delivered")
        await bench.ledger.list_entries(wanted, cursor=None, limit=100)
        costs.append(await commands_of(bench, bench.ledger.list_entries(wanted, cursor=None, limit=100)))
    assert costs[0] == costs[1] <= 30


async def test_keys_are_listed_over_very_many_teams_that_have_none(bench: Bench) -> None:
    await fill(bench, range(FEW), keys=0)
    wanted = sorted([(await bench.make_key(team=team)).key_id for team in ("a", "idle-000120", "idle-000120", "zz")])
    found: list[str] = []
    cursor, pages = None, 0
    while True:
        page = await bench.keys.page(None, cursor=cursor, limit=1)
        found += [record.id for record in page.items]
        cursor, pages = page.next_cursor, pages + 1
        if cursor is None:
            break
    assert found == wanted
    assert pages <= len(wanted) + FEW // 100 + 1


async def test_figures_are_found_behind_very_many_teams_that_are_revoked(bench: Bench) -> None:
    metrics = Metrics(label_teams=2)
    assert metrics.teams is not None
    await fill(bench, range(60), revoked=True)
    for team in ("x", "y", "z"):
        await bench.make_key(team=team)
    figures = TeamFigures(bench.teams, metrics.teams, refresh_s=60)
    shown = [sorted(await figures.read()) for _ in range(4)]
    assert shown == [[], [], [], ["x", "y"]]
    await bench.teams.revoke("x")
    # The ones before are read again until the walk has come so far.
    assert [sorted(await figures.read()) for _ in range(4)] == [["y"], ["y"], ["y"], ["y", "z"]]
