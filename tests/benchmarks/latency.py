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

RATE_HZ = 200
TURN_S = 0.5
WARM_UP_REQUESTS = 20
ANSWER_TIMEOUT_S = 10.0
END_OF_HEAD = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(slots=True)
class Samples:
    """What became of the requests to one subject."""

    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0


class Connection(asyncio.Protocol):
    """One keep-alive connection that has at most one request under way."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._answered: asyncio.Future[tuple[int, float]] | None = None
        self.transport: asyncio.WriteTransport

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, float]]:
        """Send a request; the status of its answer, and when the last byte of that had come."""
        self._received = b""
        self._answered = self._loop.create_future()
        self.transport.write(request)
        return self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._answered is not None and not self._answered.done() and is_whole(self._received):
            self._answered.set_result((int(self._received[9:12]), self._loop.time()))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error or ConnectionResetError("closed before its answer was whole"))


def is_whole(answer: bytes) -> bool:
    """Whether an answer has come to its end. One without a length ends with its last chunk."""
    head, separator, body = answer.partition(END_OF_HEAD)
    if not separator:
        return False
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return len(body) >= int(rest.partition(b"\r\n")[0]) if found else body.endswith(LAST_CHUNK)


class Target:
    """One subject and the connections to it; there are as many as requests that were under way at a time."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port = port
        self._request = request
        self._idle: deque[Connection] = deque()
        self.samples = Samples()

    async def ask(self, due: float | None = None) -> None:
        """One request that was due at this time of the loop; without one it is not counted."""
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
            status, ended = await connection.ask(self._request)
        except OSError:
            status = 0
        if status != 200:
            self.samples.failed += 1
            return
        self._idle.append(connection)
        if due is not None:
            self.samples.latencies_ms.append((ended - due) * 1000)

    def close(self) -> None:
        """Close every connection that waits for a request."""
        for connection in self._idle:
            connection.transport.close()

    async def _connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self._port)
        return connection


async def take_turn(target: Target, requests: int, late_ms: list[float]) -> None:
    """``requests`` at the constant rate. How late each was sent, the generator's own fault, goes to ``late_ms``."""
    loop = asyncio.get_running_loop()
    first = loop.time() + 1 / RATE_HZ
    under_way: set[asyncio.Task[None]] = set()
    for index in range(requests):
        due = first + index / RATE_HZ
        await asyncio.sleep(max(0.0, due - loop.time()))
        late_ms.append((loop.time() - due) * 1000)
        under_way.add(asyncio.create_task(target.ask(due)))
    _, unanswered = await asyncio.wait(under_way, timeout=ANSWER_TIMEOUT_S)
    for task in unanswered:
        task.cancel()
    target.samples.failed += len(unanswered)


async def follow(plan: dict[str, Any]) -> dict[str, Any]:
    """Load each subject of the plan for ``seconds`` in all, in turns; all samples."""
    targets = {name: Target(to["port"], to["request"].encode()) for name, to in plan["subjects"].items()}
    for target in targets.values():
        for _ in range(WARM_UP_REQUESTS):
            await target.ask()
    late_ms: list[float] = []
    gc.freeze()
    gc.disable()
    turns = max(1, round(plan["seconds"] / TURN_S))
    requests = max(1, round(plan["seconds"] * RATE_HZ / turns))
    order = list(targets.values())
    for _ in range(turns):
        for target in order:
            await take_turn(target, requests, late_ms)
        order.append(order.pop(0))
    for target in targets.values():
        target.close()
    return {"samples": {name: asdict(target.samples) for name, target in targets.items()}, "late_ms": late_ms}


def _new_event_loop() -> asyncio.AbstractEventLoop:
    # epoll and uvloop's timers count in whole milliseconds; select counts in microseconds.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        json.dump(runner.run(follow(json.load(sys.stdin))), sys.stdout)
