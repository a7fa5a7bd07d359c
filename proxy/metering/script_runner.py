"""Runs Lua scripts, all that were asked for in one turn of the event loop in one pipeline.

A pipeline costs about as much as a single command, so under load the cost of a script falls with the number of requests
that wait. At most ``flights`` pipelines are on their way at once, each on a connection of its own; what is asked for
meanwhile goes with the next.

Every script is idempotent by the id that it takes first, so a call whose reply was lost is simply made again. The id
comes back in the reply: a connection that gives somebody else's reply is closed, and nobody gets it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import NoScriptError, RedisError, ResponseError

from proxy.domain.errors import StoreUnavailable
from proxy.metering.scripts import Script, load_script
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

Argument = str | bytes | int

FLIGHTS = 4
CALLS_A_FLIGHT = 128
TRIES = 2


class _WrongReplyError(RedisError):
    """A reply that belongs to another call: whatever else the connection holds cannot be trusted."""


@dataclass(slots=True)
class _Call:
    """One run of a script. ``id`` is what the script takes first and gives back."""

    script: Script
    id: bytes
    key_count: int
    words: tuple[Argument, ...]
    reply: asyncio.Future[list[Any]]
    tries: int = 0

    def packed(self, *, with_text: bool) -> bytes:
        head = ("EVAL", self.script.text) if with_text else ("EVALSHA", self.script.sha1)
        # The stub allows for one word only.
        packed: bytes = hiredis.pack_command((*head, self.key_count, *self.words))  # type: ignore[arg-type]
        return packed


class ScriptRunner:
    """Runs scripts on one Redis, or says StoreUnavailable within twice ``timeout_s``."""

    def __init__(self, pool: ConnectionPool, metrics: Metrics, *, timeout_s: float) -> None:
        """Take connections from ``pool`` and give each pipeline ``timeout_s`` seconds."""
        self._pool = pool
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._waiting: deque[_Call] = deque()
        # Kept from the pool for good: taking one from it costs a look at the socket each time, and all that a look can
        # find, a call finds as well, and is made again.
        self._idle: list[AbstractConnection] = []
        self._flights: set[asyncio.Task[None]] = set()
        self._turn_ends: asyncio.Handle | None = None
        self.healthy = True

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> list[Any]:
        """The script's reply without the id. The first argument is the id that makes the call idempotent.

        Raises StoreUnavailable. A caller that is cancelled does not stop a call that has been sent.
        """
        loop = asyncio.get_running_loop()
        call = _Call(script, str(arguments[0]).encode(), len(keys), (*keys, *arguments), loop.create_future())
        began = perf_counter()
        self._waiting.append(call)
        if self._turn_ends is None:
            self._turn_ends = loop.call_soon(self._end_turn)
        try:
            return await call.reply
        finally:
            self._metrics.observe_store(script.name, perf_counter() - began)

    async def ping(self) -> bool:
        """Whether the store answers now."""
        try:
            await self.run(load_script("ping"), (), ("ping",))
        except StoreUnavailable:
            return False
        return True

    async def close(self) -> None:
        """Wait for the pipelines on their way."""
        while self._flights:
            await asyncio.wait(self._flights)
        while self._idle:
            await self._pool.release(self._idle.pop())

    def _end_turn(self) -> None:
        self._turn_ends = None
        while self._waiting and len(self._flights) < FLIGHTS:
            calls = [self._waiting.popleft() for _ in range(min(len(self._waiting), CALLS_A_FLIGHT))]
            flight = asyncio.get_running_loop().create_task(self._fly(calls))
            self._flights.add(flight)
            flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        if self._waiting and self._turn_ends is None:
            self._end_turn()

    async def _fly(self, calls: list[_Call]) -> None:
        connection: AbstractConnection | None = self._idle.pop() if self._idle else None
        try:
            async with asyncio.timeout(self._timeout_s):
                if connection is None:
                    connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
                await self._exchange(connection, calls)
        except (RedisError, OSError, TimeoutError) as error:
            await self._give_up(connection)
            self._try_again(calls, error)
        except BaseException:
            await self._give_up(connection)
            self._fail(calls)
            raise
        else:
            self._idle.append(connection)
            self._note_health(healthy=True)

    async def _give_up(self, connection: AbstractConnection | None) -> None:
        """Close a connection that replies may still come on: they must not become somebody else's."""
        # The idle ones go too: where one is dead, all of them may be, and each would cost a call one of its tries.
        broken = [*self._idle, connection] if connection is not None else self._idle
        self._idle = []
        for one in broken:
            await one.disconnect(nowait=True)
            await self._pool.release(one)

    async def _exchange(self, connection: AbstractConnection, calls: list[_Call]) -> None:
        await connection.send_packed_command([call.packed(with_text=False) for call in calls])
        unknown = [call for call in calls if not await self._take_reply(connection, call)]
        if unknown:
            await connection.send_packed_command([call.packed(with_text=True) for call in unknown])
            for call in unknown:
                await self._take_reply(connection, call)

    async def _take_reply(self, connection: AbstractConnection, call: _Call) -> bool:
        """Hand one reply to its caller; False where Redis does not know the script."""
        try:
            reply = await connection.read_response()
        except NoScriptError:
            return False
        except ResponseError as error:
            logger.error("the store refused the script %s: %s", call.script.name, error)
            if not call.reply.done():
                call.reply.set_exception(StoreUnavailable())
            return True
        if not isinstance(reply, list) or not reply or reply[0] != call.id:
            raise _WrongReplyError(f"the reply to {call.script.name} is not for the call it came to")
        if not call.reply.done():
            call.reply.set_result(reply[1:])
        return True

    def _try_again(self, calls: list[_Call], error: Exception) -> None:
        self._note_health(healthy=False, error=error)
        for call in calls:
            call.tries += 1
        self._fail([call for call in calls if call.tries >= TRIES])
        self._waiting.extendleft(call for call in reversed(calls) if not call.reply.done())

    def _fail(self, calls: list[_Call]) -> None:
        for call in calls:
            if not call.reply.done():
                call.reply.set_exception(StoreUnavailable())

    def _note_health(self, *, healthy: bool, error: Exception | None = None) -> None:
        if healthy and not self.healthy:
            logger.warning("the store answers again")
        elif not healthy and self.healthy:
            logger.error("the store cannot be reached (%r): requests get 503 until it can", error)
        if healthy != self.healthy:
            self.healthy = healthy
            self._metrics.store_health(healthy=healthy)
