"""What a page of each admin list costs beside few and beside very many teams, and a dead gateway's leases beside few.

``python -m tests.benchmarks.page_scale`` fills the embedded Valkey, and tells how long each page takes, and the longest
that the store was busy with one call of it, by its own slow log.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import orjson

from proxy.metering.accounts.team_figures import TeamFigures
from proxy.metering.ledger.audit_log import AuditLog
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.ledger.pages import LedgerFilter
from proxy.telemetry.metrics import Metrics
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench
from tests.support.stores import store_server

BATCH = 5_000
ROUNDS = 3
LEASES = 10_000
TEAM = "idle-000000"


async def fill(bench: Bench, teams: int) -> None:
    """Teams with a key each and with nothing in their ledgers."""
    for start in range(0, teams, BATCH):
        pipe = bench.redis.pipeline(transaction=False)
        for number in range(start, min(teams, start + BATCH)):
            team = f"idle-{number:06d}"
            key_id = f"{team}_0000000000"
            pipe.zadd("lm:teams", {team: 0})
            pipe.execute_command("HSET", f"lm:{{{team}}}:team", "created_ms", 1, "revoked_ms", 2)
            pipe.execute_command("HSET", f"lm:{{{team}}}:key:{key_id}", "created_ms", 1)
            pipe.zadd(f"lm:{{{team}}}:keys", {key_id: 0})
        await pipe.execute()


async def let_leases_run_out(bench: Bench) -> None:
    """As a gateway leaves them that died with ``LEASES`` requests of one team."""
    key_id = f"{TEAM}_0000000000"
    facts = orjson.dumps({"key": key_id, "endpoint": ENDPOINT, "model": MODEL, "requested_images": 1})
    pipe = bench.redis.pipeline(transaction=False)
    for number in range(LEASES):
        pipe.execute_command("SET", f"lm:{{{TEAM}}}:reservation:dead_{number}", b"held 1 1700000000000 " + facts)
        pipe.zadd(f"lm:{{{TEAM}}}:leases", {f"dead_{number}": 1})
    await pipe.execute()


async def read_figures(bench: Bench) -> None:
    """One reading of the figures of teams, all of which are revoked."""
    metrics = Metrics(label_teams=20)
    assert metrics.teams is not None
    await TeamFigures(bench.teams, metrics.teams, refresh_s=60).read()


PAGES: dict[str, Callable[[Bench], Awaitable[object]]] = {
    "ledger, all teams": lambda bench: bench.ledger.list_entries(LedgerFilter(), cursor=None, limit=1),
    "audit, all teams": lambda bench: AuditLog(bench.pool, bench.store).list_entries(
        None, since_ms=None, cursor=None, limit=1
    ),
    "keys, all teams, 100": lambda bench: bench.keys.page(None, cursor=None, limit=100),
    "teams, 100": lambda bench: bench.teams.page(cursor=None, limit=100),
    "teams that have books, 100": lambda bench: _books(bench).teams(limit=100),
    "books of a team": lambda bench: _books(bench).read(TEAM, after="", limit=50),
    "figures of teams": read_figures,
}


def _books(bench: Bench) -> LedgerBooks:
    return LedgerBooks(bench.runner, bench.pool, bench.store)


async def cost(bench: Bench, page: Callable[[Bench], Awaitable[object]], rounds: int) -> tuple[float, float]:
    """Milliseconds of the fastest of ``rounds``, and of the longest call of the store in it."""
    found = []
    for _ in range(rounds):
        await bench.redis.slowlog_reset()
        began = perf_counter()
        await page(bench)
        took_ms = (perf_counter() - began) * 1_000
        calls: list[Any] = await bench.redis.slowlog_get(10_000)
        found.append((took_ms, max((call["duration"] / 1_000 for call in calls), default=0.0)))
    return min(found)


async def measure(url: str, teams: int) -> None:
    """Fill, and tell each figure."""
    async with open_bench(url) as bench:
        await bench.redis.flushall()
        await fill(bench, teams)
        await bench.redis.config_set("slowlog-log-slower-than", 20)
        await bench.redis.config_set("slowlog-max-len", 10_000)
        for name, page in PAGES.items():
            await page(bench)
            took_ms, longest_ms = await cost(bench, page, ROUNDS)
            click.echo(f"{teams:,} teams, {name}: {took_ms:.1f} ms, the store at most {longest_ms:.2f} ms at a time")
        await let_leases_run_out(bench)
        took_ms, longest_ms = await cost(bench, lambda bench: bench.teams.get(TEAM), 1)
        click.echo(
            f"{teams:,} teams, {LEASES:,} leases of one run out: {took_ms:.1f} ms, "
            f"the store at most {longest_ms:.2f} ms at a time"
        )


@click.command
@click.option("--teams", "sizes", multiple=True, type=int, default=(200, 100_000), show_default=True)
def main(sizes: tuple[int, ...]) -> None:
    """Measure and tell."""
    with tempfile.TemporaryDirectory() as folder, store_server("valkey", Path(folder)) as (url, _):
        for size in sizes:
            asyncio.run(measure(url, size))


if __name__ == "__main__":
    main()
