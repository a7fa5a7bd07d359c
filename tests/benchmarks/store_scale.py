"""What one admission and one settlement cost the store, beside few and beside very many keys, teams and entries.

``python -m tests.benchmarks.store_scale`` fills the embedded Valkey, and reads the store's own account of its time for
the same requests of one key that has every limit, as its team has.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import click

from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.limits import Limits
from proxy.telemetry.observation import request_ids
from tests.benchmarks.capacity.stores import EVERY_LIMIT
from tests.metering.conftest import Bench, open_bench
from tests.support.stores import store_server

TEAM = "acme"
OTHERS = 1_000
REQUESTS = 5_000
AT_ONCE = 50
BATCH = 2_000


async def fill(bench: Bench, keys: int) -> None:
    """``keys`` more keys, half of them of one team, and as many ledger entries there."""
    for start in range(0, keys, BATCH):
        pipe = bench.redis.pipeline(transaction=False)
        for number in range(start, min(keys, start + BATCH)):
            team = TEAM if number % 2 else f"team-{number % OTHERS}"
            key_id = f"{team}_{number:010d}"
            record = ("secret_sha256", f"{number:064x}", "created_ms", 1, "quota_units", 10_000_000, "models", "acme/*")
            pipe.execute_command("HSET", f"lm:{{{team}}}:key:{key_id}", *record)
            pipe.zadd(f"lm:{{{team}}}:keys", {key_id: 0})
            pipe.zadd("lm:teams", {team: 0})
            pipe.xadd(f"lm:{{{TEAM}}}:ledger", {"kind": "grant", "key": key_id, "quota_units": 0, "facts": "{}"})
        await pipe.execute()


async def measure(url: str, keys: int, limits: Limits, rounds: int) -> float:
    """Microseconds of the store for one admission and one settlement; the best of ``rounds``."""
    async with open_bench(url) as bench:
        await bench.redis.flushall()
        await bench.teams.create(TEAM, name="", limits=limits)
        credential, ids = await bench.make_key(limits=limits), request_ids()
        await fill(bench, keys)

        async def one() -> None:
            reservation = await bench.admit(credential, next(ids), 5_000)
            await bench.store.settle(settle(reservation, Delivery(images=1)))

        found = []
        for _ in range(rounds + 1):
            await bench.redis.config_resetstat()
            for _ in range(REQUESTS // AT_ONCE):
                await asyncio.gather(*(one() for _ in range(AT_ONCE)))
            stats = await bench.redis.info("commandstats")
            found.append(2 * float(stats["cmdstat_evalsha"]["usec_per_call"]))
        # The first one has the store move its tables.
        return min(found[1:])


@click.command
@click.option("--keys", "sizes", multiple=True, type=int, default=(1_000, 1_000_000), show_default=True)
@click.option("--rounds", default=3, show_default=True, help="The best of so many.")
def main(sizes: tuple[int, ...], rounds: int) -> None:
    """Measure and tell."""
    with tempfile.TemporaryDirectory() as folder, store_server("valkey", Path(folder)) as (url, _):
        for size in sizes:
            for name, limits in (("no limit", Limits()), ("every limit", EVERY_LIMIT)):
                best = asyncio.run(measure(url, size, limits, rounds))
                click.echo(f"{size:,} keys and ledger entries, {name}: {best:.1f} us for both scripts")


if __name__ == "__main__":
    main()
