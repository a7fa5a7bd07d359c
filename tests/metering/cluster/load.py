"""Requests of many teams, one after another in each, while something happens to the Cluster; and what came of them."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from proxy.domain.api_key import Credential
from proxy.domain.errors import StoreUnavailable
from proxy.telemetry.observation import Observation
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench, quote
from tests.support.clusters import Cluster, Node
from tests.support.polling import eventually

QUOTA = 10**9


class Load:
    """What each team's requests have come to."""

    def __init__(self, bench: Bench, keys: Sequence[Credential]) -> None:
        self.bench = bench
        self.keys = {key.team: key for key in keys}
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.longest_s: dict[str, float] = defaultdict(float)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Send requests from now on."""
        self._tasks = [asyncio.create_task(self._keep_asking(key)) for key in self.keys.values()]

    async def stop(self) -> None:
        """Send no more, and wait until all that is owed has been posted."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        await eventually(lambda: not self.bench.meter._outbox._owed, within_s=30)

    def cancel(self) -> None:
        """End them at once."""
        for task in self._tasks:
            task.cancel()

    async def all_go_on(self, count: int = 3, teams: Sequence[str] = ()) -> None:
        """Wait until each team has had so many more requests done."""
        before = Counter(self.done)
        await eventually(
            lambda: all(self.done[team] >= before[team] + count for team in teams or self.keys), within_s=30
        )

    async def check(self) -> None:
        """Each request that was done is in the ledger, once; counters are what it adds up to; nothing is held."""
        for team, key in self.keys.items():
            record, by_model, _by_day = await self.bench.keys.usage(key.key_id)
            entries: Any = await self.bench.redis.xrange(f"lm:{{{team}}}:ledger")
            requests = [fields[b"request"] for _, fields in entries]
            assert len(set(requests)) == len(requests), team
            charged = sum(int(fields[b"charged"]) for _, fields in entries)
            assert (record.quota.posted, record.quota.reserved, record.held) == (charged, 0, 0), team
            assert by_model[MODEL].quota_units == charged
            assert charged == self.done[team], team
            team_record = await self.bench.teams.get(team)
            assert (team_record.quota.posted, team_record.quota.reserved) == (charged, 0), team

    async def _keep_asking(self, key: Credential) -> None:
        number = 0
        while not self._stopping:
            number += 1
            began = monotonic()
            observation = Observation(f"req_{key.team}_{number}", ENDPOINT, model=MODEL)
            try:
                async with self.bench.meter.admit(key, observation, MODEL, quote(1)) as delivery:
                    await asyncio.sleep(0.002)
                    delivery.images = 1
                    delivery.end(complete=True)
                self.done[key.team] += 1
            except StoreUnavailable:
                self.refused[key.team] += 1
                await asyncio.sleep(0.02)
            self.longest_s[key.team] = max(self.longest_s[key.team], monotonic() - began)


@asynccontextmanager
async def load_on(
    cluster: Cluster, teams: Sequence[str], *, timeout_s: float = 2, min_replicas: int = 0
) -> AsyncIterator[Load]:
    """Requests of ``teams`` for as long as the block lasts; then the books are checked."""
    async with open_bench(cluster.url, timeout_s=timeout_s, min_replicas=min_replicas, lease_ms=5_000) as bench:
        load = Load(bench, [await bench.make_key(QUOTA, team=team) for team in teams])
        load.start()
        try:
            await load.all_go_on()
            yield load
        except BaseException:
            load.cancel()
            raise
        await load.stop()
        await load.check()


async def in_thread(act: Callable[..., Any], *arguments: Any) -> Any:
    """What a test does to the servers, while the event loop goes on."""
    return await asyncio.to_thread(act, *arguments)


def teams_of_all(cluster: Cluster, count: int, prefix: str) -> dict[int, list[str]]:
    """So many teams of each primary, by its port."""
    return {node.port: cluster.teams(node, count, prefix) for node in owners(cluster)}


def owners(cluster: Cluster) -> list[Node]:
    """The primaries of now."""
    ranges = next(node for node in cluster.nodes if node.is_up).ask("CLUSTER", "SLOTS")
    return [cluster.node_at(port) for port in sorted({primary[1] for _, _, primary, *_ in ranges})]
