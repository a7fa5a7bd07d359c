"""What a request leaves in the store, in bytes: its settled id, its idempotency record and its ledger entry.

``python -m tests.benchmarks.store_memory`` settles requests through the real scripts on the embedded Valkey, then takes
out one kind after the other and looks at what that has freed.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path

import click

from proxy.domain.billing.settlement import Delivery, Outcome, Served, settle
from proxy.domain.requests.idempotency import Idempotency
from proxy.telemetry.observation import request_ids
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench, quote
from tests.support.stores import store_server

AT_ONCE = 200
KINDS = {
    "settled id": "lm:*:reservation:*",
    "idempotency record without an answer": "lm:*:idempotency:*",
    "ledger entry": "lm:*:ledger",
}


async def measure(url: str, requests: int) -> dict[str, float]:
    """Bytes a request, by kind."""
    async with open_bench(url, settled_ids_ms=86_400_000) as bench:
        credential, ids = await bench.make_key(), request_ids()

        async def one() -> None:
            request_id = next(ids)
            idempotency = Idempotency(hashlib.sha256(request_id.encode()).hexdigest(), "0" * 64)
            reservation = await bench.store.admit(
                *(request_id, credential), endpoint=ENDPOINT, model=MODEL, quote=quote(5_000), idempotency=idempotency
            )
            delivery = Delivery(
                served=Served("sample", 200, ms=812),
                outcome=Outcome.DELIVERED,
                ended=True,
                images=1,
                provider_usage=b'{"total_tokens":4160}',
            )
            await bench.store.settle(settle(reservation, delivery))

        for _ in range(requests // AT_ONCE):
            await asyncio.gather(*(one() for _ in range(AT_ONCE)))
        return {kind: await _freed_by(bench, pattern) / requests for kind, pattern in KINDS.items()}


async def _freed_by(bench: Bench, pattern: str) -> float:
    before = await _used(bench)
    async for key in bench.redis.scan_iter(pattern, count=1_000):
        await bench.redis.delete(key)
    return before - await _used(bench)


async def _used(bench: Bench) -> int:
    # The table of keys shrinks step by step, with what else the server does in between.
    await asyncio.sleep(1)
    info = await bench.redis.info("memory")
    return int(info["used_memory"])


@click.command
@click.option("--requests", default=100_000, show_default=True)
def main(requests: int) -> None:
    """Measure and tell."""
    with tempfile.TemporaryDirectory() as folder, store_server("valkey", Path(folder)) as (url, _):
        for kind, size in asyncio.run(measure(url, requests)).items():
            click.echo(f"{kind}: {size:.0f} bytes, {size:.0f} MB per million requests")


if __name__ == "__main__":
    main()
