"""Runs Lua scripts, all that were asked for in one turn of the event loop in one write.

Every script is idempotent by the id that it takes first, so a call whose reply was lost is simply made again. The id
comes back in the reply: a connection that gives somebody else's reply is closed, and nobody gets it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Protocol

import hiredis

from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.connection import (
    Argument,
    Asking,
    Call,
    ConnectError,
    ScriptConnection,
    Sent,
    open_connection,
    pack_call,
    unpack,
)
from proxy.metering.redis.health import StoreHealth
from proxy.metering.redis.scripts import Script, load_script
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

PING = "lm:ping"
"""String of no meaning, written to see whether writing is possible."""

TRIES = 2
LOOKS_A_TIMEOUT = 8
"""How often the clock is looked at within the time of one call: a stall is noticed an eighth of it late."""


class Router(Protocol):
    """Who sends calls to the nodes of a Cluster, each of which has a runner; it gets back what a node does not take."""

    def take_refused(self, call: Call, refusal: str) -> bool:
        """A node has refused it; False where the call ends with that."""
        ...

    def connected(self, url: str) -> None:
        """There is a new connection to the node at ``url``."""
        ...

    def take_lost(self, calls: Sequence[Call]) -> None:
        """The node's connection was lost before they had a reply, or none was made."""
        ...

    def ping_key(self, url: str) -> str:
        """A key of no meaning that the node at ``url`` has."""
        ...


class ScriptRunner:
    """Runs scripts on one Redis, or says StoreUnavailable within about twice ``timeout_s``."""

    def __init__(
        self,
        url: str,
        metrics: Metrics,
        *,
        timeout_s: float,
        health: StoreHealth | None = None,
        router: Router | None = None,
    ) -> None:
        """Connect to ``url`` when first asked; give each try of a call ``timeout_s`` seconds.

        ``router`` is there where it is a node of a Cluster.
        """
        self._router = router
        self.health = health or StoreHealth(metrics)
        self._url = url
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._waiting: list[Call] = []
        self._connection: ScriptConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._turn_ends: asyncio.Handle | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._closed = False
        self.on_connected: list[Callable[[], None]] = []
        """Called with each new connection; what they submit is sent before all that waits."""

    @property
    def healthy(self) -> bool:
        """Whether the store took the last call."""
        return self.health.healthy

    def submit(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Call:
        """Send a call when this turn of the event loop ends; its reply as ``run`` gives it."""
        return self.submit_command(script, str(arguments[0]), pack_call(script, keys, arguments))

    def submit_command(self, script: Script, call_id: str, command: bytes) -> Call:
        """The same for a call that ``pack_call`` has packed; ``call_id`` is its first argument."""
        return self.submit_call(Call(script, call_id.encode(), command, asyncio.get_running_loop().create_future()))

    def submit_again(self, script: Script, command: bytes) -> Call:
        """The same for a call of ``script`` that was sent as ``command``."""
        _evalsha, _sha1, key_count, *words = unpack(command)
        return self.submit_call(
            Call(script, words[int(key_count)], command, asyncio.get_running_loop().create_future())
        )

    def submit_call(self, call: Call) -> Call:
        """The same for a call that has been made; every other way leads here."""
        self._waiting.append(call)
        if self._turn_ends is None:
            self._turn_ends = asyncio.get_running_loop().call_soon(self._end_turn)
        return call

    def place_of(self, command: bytes) -> object:
        """Which node of a Cluster has the team of a packed call; the same object for all of one server."""
        return None

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> list[Any]:
        """The script's reply without the id. The first argument is the id that makes the call idempotent.

        Raises StoreUnavailable. A caller that is cancelled does not stop a call that has been sent.
        """
        return await self.reply_to(self.submit(script, keys, arguments))

    async def reply_to(self, call: Call) -> list[Any]:
        """The reply to a call that has just been submitted, as ``run`` gives it."""
        began = perf_counter()
        try:
            return await call.reply
        except StoreUnavailable:
            self._metrics.store_failed(call.script.name)
            raise
        finally:
            self._metrics.observe_store(call.script.name, perf_counter() - began)

    async def ping(self) -> bool:
        """Whether the store answers now."""
        try:
            await self.run(load_script("ping"), (self._ping_key,), ("ping",))
        except StoreUnavailable:
            return False
        return True

    @property
    def _ping_key(self) -> str:
        return PING if self._router is None else self._router.ping_key(self._url)

    def let_go(self) -> None:
        """Close the connection at once; its router gets back what has no reply yet."""
        calls, self._waiting = self._waiting, []
        if self._connection is not None:
            self._connection.abort()
        self._try_again(calls)

    async def close(self) -> None:
        """Close the connection; calls still under way fail, also those that wait for a connection."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        calls, self._waiting = self._waiting, []
        self._try_again(calls)
        if self._clock is not None:
            self._clock.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
            # The transport closes in the next turn.
            await asyncio.sleep(0)

    # --- Sending ------------------------------------------------------------------------------------------------------

    def _end_turn(self) -> None:
        self._turn_ends = None
        if not self._waiting:
            return
        if self._closed:
            calls, self._waiting = self._waiting, []
            self._try_again(calls)
            return
        loop = asyncio.get_running_loop()
        if self._connection is None:
            if self._connecting is None:
                self._connecting = loop.create_task(self._connect())
            return
        self._connection.send(self._take_waiting(), loop.time())
        if self._clock is None:
            self._clock = loop.call_later(self._timeout_s / LOOKS_A_TIMEOUT, self._look_at_the_clock)

    def _take_waiting(self) -> Sequence[Sent]:
        """All that is to be sent now."""
        calls, self._waiting = self._waiting, []
        if self._router is None:
            return calls
        return [sent for call in calls for sent in _with_asking(call)]

    async def _before_connecting(self) -> None:
        """What has to be done before a new connection is of use. Raises StoreUnavailable."""

    async def _connect(self) -> None:
        try:
            await self._before_connecting()
            self._connection = await open_connection(self._url, self._take, self._lost, timeout_s=self._timeout_s)
        except Exception as error:
            self.health.failed(error)
            calls, self._waiting = self._waiting, []
            self._try_again(calls)
        else:
            if self._router is not None:
                self._router.connected(self._url)
            waiting, self._waiting = self._waiting, []
            for callback in self.on_connected:
                callback()
            self._waiting += waiting
        finally:
            self._connecting = None
        self._end_turn()

    def _look_at_the_clock(self) -> None:
        connection, self._clock = self._connection, None
        oldest = connection.oldest_sent if connection is not None else None
        if connection is None or oldest is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() - oldest > self._timeout_s:
            self.health.failed(TimeoutError(f"no answer for {self._timeout_s:g} seconds"))
            connection.abort()
        self._clock = loop.call_later(self._timeout_s / LOOKS_A_TIMEOUT, self._look_at_the_clock)

    # --- What comes back ----------------------------------------------------------------------------------------------

    def _take(self, sent: Sent, reply: Any) -> None:
        """What the connection gives for each that was sent."""
        if type(sent) is Call:
            self._take_reply(sent, reply)

    def _take_reply(self, call: Call, reply: Any) -> None:
        if type(reply) is list and reply and reply[0] == call.id:
            if not self.health.healthy:
                self.health.answered()
            if not call.reply.done():
                call.reply.set_result(reply[1:])
        elif not isinstance(reply, hiredis.ReplyError):
            logger.error("the reply to %s is not for the call it came to", call.script.name)
            self._try_again([call])
            if self._connection is not None:
                self._connection.abort()
        elif str(reply).startswith("NOSCRIPT") and not call.with_text:
            call.with_text = True
            self._waiting.append(call)
            self._end_turn()
        elif self._router is None or not self._router.take_refused(call, str(reply)):
            self.health.refused(call.script.name, str(reply))
            self._fail(call, may_have_happened=call.tries > 0, refusal=str(reply))
            if str(reply).startswith("READONLY") and self._connection is not None:
                # The name may lead to another server by now.
                self._connection.abort()

    def _lost(self, connection: ScriptConnection, lost: list[Sent]) -> None:
        if self._connection is connection:
            self._connection = None
        calls = self._calls_of(lost)
        if calls:
            self.health.failed(ConnectError("the connection was closed"))
        self._try_again(calls)

    def _calls_of(self, lost: list[Sent]) -> list[Call]:
        return [sent for sent in lost if isinstance(sent, Call)]

    def _try_again(self, calls: list[Call]) -> None:
        if self._router is not None:
            self._router.take_lost(calls)
            return
        for call in calls:
            call.tries += 1
            if self._closed or call.tries >= TRIES:
                self._fail(call, may_have_happened=call.sent > 0)
            elif not call.reply.done():
                self._waiting.append(call)
        if self._waiting and self._turn_ends is None:
            self._turn_ends = asyncio.get_running_loop().call_soon(self._end_turn)

    def _fail(self, call: Call, *, may_have_happened: bool, refusal: str = "") -> None:
        if not call.reply.done():
            call.reply.set_exception(StoreUnavailable(may_have_happened=may_have_happened, refusal=refusal))


def _with_asking(call: Call) -> tuple[Sent, ...]:
    return (Asking(), call) if call.route is not None and call.route.asks else (call,)
