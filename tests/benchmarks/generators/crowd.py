"""Thousands of requests that are all under way at the same time, each on a connection of its own.

A program of its own: a plan as JSON comes on standard input. It says ``sent`` when the last request is out, and then
gives its samples, each on a line of JSON on standard output.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections import Counter
from typing import Any

import uvloop

from tests.benchmarks.generators.connection import GONE, Connection

RATE_HZ = 1_200
"""So many connections are opened, and then requests sent, a second."""
STEP_S = 0.01


async def press(port: int, request: bytes, count: int, timeout_s: float) -> dict[str, Any]:
    """One request on each of ``count`` connections; how long each took, and the statuses of those that failed."""
    loop = asyncio.get_running_loop()
    latencies_ms: list[float] = []
    failed: Counter[int] = Counter()
    left = count
    all_answered = asyncio.Event()

    def answered(_connection: Connection, status: int, asked_s: float) -> None:
        nonlocal left
        if status == 200:
            latencies_ms.append((loop.time() - asked_s) * 1000)
        else:
            failed[status] += 1
        left -= 1
        if not left:
            all_answered.set()

    connections: list[Connection] = []
    step = max(1, round(RATE_HZ * STEP_S))
    while len(connections) < count:
        opening = (
            loop.create_connection(lambda: Connection(answered), "127.0.0.1", port)
            for _ in range(min(step, count - len(connections)))
        )
        connections += [connection for _, connection in await asyncio.gather(*opening)]
        await asyncio.sleep(STEP_S)
    gc.freeze()
    began_s = loop.time()
    for start in range(0, count, step):
        await asyncio.sleep(began_s + start / RATE_HZ - loop.time())
        for connection in connections[start : start + step]:
            connection.ask(request, loop.time())
    _say({"sent": count})
    try:
        async with asyncio.timeout(timeout_s):
            await all_answered.wait()
    except TimeoutError:
        failed[GONE] += left
    for connection in connections:
        connection.asked_s = None
        connection.transport.close()
    return {"latencies_ms": latencies_ms, "failed": failed}


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    plan = json.load(sys.stdin)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        _say(runner.run(press(plan["port"], plan["request"].encode(), plan["count"], plan["timeout_s"])))
