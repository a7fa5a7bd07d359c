"""Load at a constant rate, whatever the answers take, on each subject in turn.

A program of its own: a plan as JSON comes on standard input, the samples go to standard output. A request's time counts
from when it was due, so that a subject which makes others wait is charged with their waiting. The subjects take turns
of half a second, so that what else the machine does falls on all of them alike.
"""

from __future__ import annotations

import asyncio
import gc
import json
import selectors
import sys
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.benchmarks.generators.connection import Connection

TURN_S = 0.5
CONNECTIONS = 100
"""To each subject. What is due while all of them have a request waits, and its time counts."""
WARM_UP_REQUESTS = 20
ANSWER_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Samples:
    """What became of the requests to one subject."""

    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0


class Target:
    """One subject and the connections to it."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port = port
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._all: list[Connection] = []
        self._waiting: deque[float] = deque()
        self._under_way = 0
        self._nothing_left = asyncio.Event()
        self._is_counting = False
        self.samples = Samples()

    async def open(self) -> None:
        """Open the connections, and warm the subject up."""
        for _ in range(CONNECTIONS):
            made = await self._loop.create_connection(lambda: Connection(self._end), "127.0.0.1", self._port)
            self._idle.append(made[1])
        self._all = list(self._idle)
        for _ in range(WARM_UP_REQUESTS):
            self.ask(self._loop.time())
            await self.answered()
        self._is_counting = True

    def ask(self, due_s: float) -> None:
        """One request that was due at this time of the loop."""
        self._under_way += 1
        self._nothing_left.clear()
        if self._idle:
            self._idle.pop().ask(self._request, due_s)
        else:
            self._waiting.append(due_s)

    async def answered(self) -> None:
        """Until nothing is under way; what takes too long has failed, and so has its connection."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._nothing_left.wait()
        except TimeoutError:
            while self._waiting:
                self._waiting.pop()
                self._count(None)
            for connection in self._all:
                if connection.asked_s is not None:
                    connection.transport.abort()
            # Each of them tells of its end.
            await self._nothing_left.wait()

    def close(self) -> None:
        """Close every connection."""
        for connection in self._all:
            connection.transport.close()

    def _end(self, connection: Connection, status: int, asked_s: float) -> None:
        if status != 200:
            connection.transport.abort()
            self._count(None)
            return
        took_ms = (self._loop.time() - asked_s) * 1000
        if self._waiting:
            connection.ask(self._request, self._waiting.popleft())
        else:
            self._idle.append(connection)
        self._count(took_ms)

    def _count(self, took_ms: float | None) -> None:
        if took_ms is None:
            self.samples.failed += 1
        elif self._is_counting:
            self.samples.latencies_ms.append(took_ms)
        self._under_way -= 1
        if not self._under_way:
            self._nothing_left.set()


async def take_turn(target: Target, requests: int, rate_hz: float, late_ms: list[float]) -> None:
    """``requests`` at the constant rate. How late each was sent, the generator's own fault, goes to ``late_ms``."""
    loop = asyncio.get_running_loop()
    first_s = loop.time() + 1 / rate_hz
    for index in range(requests):
        due_s = first_s + index / rate_hz
        wait_s = due_s - loop.time()
        if wait_s > 0 or not index % CONNECTIONS:
            await asyncio.sleep(max(0.0, wait_s))
        late_ms.append(max(0.0, loop.time() - due_s) * 1000)
        target.ask(due_s)
    await target.answered()


async def follow(plan: dict[str, Any]) -> dict[str, Any]:
    """Load each subject of the plan for ``seconds`` in all, in turns, at ``rate_hz``; all samples."""
    targets = {name: Target(to["port"], to["request"].encode()) for name, to in plan["subjects"].items()}
    for target in targets.values():
        await target.open()
    late_ms: list[float] = []
    gc.freeze()
    gc.disable()
    turns = max(1, round(plan["seconds"] / TURN_S))
    requests = max(1, round(plan["seconds"] * plan["rate_hz"] / turns))
    order = list(targets.values())
    for _ in range(turns):
        for target in order:
            await take_turn(target, requests, plan["rate_hz"], late_ms)
        order.append(order.pop(0))
    for target in targets.values():
        target.close()
    return {"samples": {name: asdict(target.samples) for name, target in targets.items()}, "late_ms": late_ms}


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop whose timers count in microseconds; those of epoll and uvloop count in whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        json.dump(runner.run(follow(json.load(sys.stdin))), sys.stdout)
