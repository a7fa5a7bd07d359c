"""Runs Lua scripts, all that were asked for in one turn of the event loop in one write.

Every script is idempotent by the id that it takes first, so a call whose reply was lost is simply made again. The id
comes back in the reply: a connection that gives somebody else's reply is closed, and nobody gets it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import hiredis

from proxy.domain.errors import StoreUnavailable
from proxy.metering import key_names
from proxy.metering.script_connection import (
    Argument,
    Call,
    ConnectError,
    ScriptConnection,
    Sent,
    Wait,
    open_connection,
    unpack,
)
from proxy.metering.scripts import Script, load_script
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

TRIES = 2
ADMIT = "admit"
"""The script whose effects replicas should have before anybody counts on them."""

SILENCE_S = 10.0
"""Between two lines in the log about the same refusal."""

ADVICE = {
    "OOM": "its memory is full; raise its maxmemory, or free some of it",
    "READONLY": "it is a replica; point store.url at the primary",
    "LOADING": "it is reading its data, and will answer when it has",
    "MISCONF": "it cannot write to its disk; look at its log, and at the space there",
    "NOAUTH": "it wants a password; put it into store.url",
    "WRONGPASS": "the password in store.url is wrong",
    "NOPERM": "its user may not run scripts on keys that begin with lm: ; allow it",
    "NOREPLICAS": "too few of its replicas are connected",
    "BUSY": "another script has kept it busy for long; SCRIPT KILL ends that",
}

LOOKS_A_TIMEOUT = 8
"""How often the clock is looked at within the time of one call: a stall is noticed an eighth of it late."""


class ScriptRunner:
    """Runs scripts on one Redis, or says StoreUnavailable within about twice ``timeout_s``."""

    def __init__(self, url: str, metrics: Metrics, *, timeout_s: float, min_replicas: int = 0) -> None:
        """Connect to ``url`` when first asked; give each try of a call ``timeout_s`` seconds.

        An admission counts only when ``min_replicas`` replicas have it as well, within half that time.
        """
        self._min_replicas = min_replicas
        self._unreplicated: dict[Call, Wait] = {}
        self._told: dict[str, float] = {}
        self._url = url
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._waiting: list[Call] = []
        self._connection: ScriptConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._turn_ends: asyncio.Handle | None = None
        self._clock: asyncio.TimerHandle | None = None
        self.healthy = True
        self.on_connected: list[Callable[[], None]] = []
        """Called with each new connection; what they submit is sent before all that waits."""

    def submit(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Call:
        """Send a call when this turn of the event loop ends; its reply as ``run`` gives it."""
        loop = asyncio.get_running_loop()
        return self._submit(
            Call(script, str(arguments[0]).encode(), len(keys), (*keys, *arguments), loop.create_future())
        )

    def submit_again(self, script: Script, command: bytes) -> Call:
        """The same for a call of ``script`` that was sent as ``command``."""
        _evalsha, _sha1, key_count, *words = unpack(command)
        reply = asyncio.get_running_loop().create_future()
        return self._submit(Call(script, words[int(key_count)], int(key_count), tuple(words), reply))

    def _submit(self, call: Call) -> Call:
        self._waiting.append(call)
        if self._turn_ends is None:
            self._turn_ends = asyncio.get_running_loop().call_soon(self._end_turn)
        return call

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
            await self.run(load_script("ping"), (key_names.PING,), ("ping",))
        except StoreUnavailable:
            return False
        return True

    async def close(self) -> None:
        """Close the connection; calls still under way fail."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
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
        loop = asyncio.get_running_loop()
        if self._connection is None:
            if self._connecting is None:
                self._connecting = loop.create_task(self._connect())
            return
        calls, self._waiting = self._waiting, []
        self._connection.send(self._and_wait(calls) if self._min_replicas else calls, loop.time())
        if self._clock is None:
            self._clock = loop.call_later(self._timeout_s / LOOKS_A_TIMEOUT, self._look_at_the_clock)

    def _and_wait(self, calls: Sequence[Call]) -> list[Sent]:
        admissions = [call for call in calls if call.script.name == ADMIT]
        if not admissions:
            return list(calls)
        wait = Wait(self._min_replicas, int(self._timeout_s * 500))
        self._unreplicated.update(dict.fromkeys(admissions, wait))
        return [*calls, wait]

    async def _connect(self) -> None:
        on_reply = self._take_replicated if self._min_replicas else self._take_reply
        try:
            self._connection = await open_connection(self._url, on_reply, self._lost, timeout_s=self._timeout_s)
        except Exception as error:
            self._note_health(healthy=False, error=error)
            calls, self._waiting = self._waiting, []
            self._try_again(calls)
        else:
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
            self._note_health(healthy=False, error=TimeoutError(f"no answer for {self._timeout_s:g} seconds"))
            connection.abort()
        self._clock = loop.call_later(self._timeout_s / LOOKS_A_TIMEOUT, self._look_at_the_clock)

    # --- What comes back ----------------------------------------------------------------------------------------------

    def _take_reply(self, call: Call, reply: Any) -> None:
        if type(reply) is list and reply and reply[0] == call.id:
            if not self.healthy:
                self._note_health(healthy=True)
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
        else:
            self._note_refusal(call.script.name, str(reply))
            self._fail(call, may_have_happened=call.tries > 0, refusal=str(reply))
            if str(reply).startswith("READONLY") and self._connection is not None:
                # The name may lead to another server by now.
                self._connection.abort()

    def _take_replicated(self, sent: Sent, reply: Any) -> None:
        """As ``_take_reply``, but replies to admissions are held until replicas have them."""
        if isinstance(sent, Call):
            wait = self._unreplicated.pop(sent, None)
            if wait is not None and type(reply) is list:
                wait.held.append((sent, reply))
            else:
                self._take_reply(sent, reply)
            return
        replicas = reply if isinstance(reply, int) else 0
        for call, held in sent.held:
            if replicas >= sent.replicas or held[:2] != [call.id, b"admitted"]:
                self._take_reply(call, held)
            else:
                self._fail(call, may_have_happened=True)
        if replicas < sent.replicas and self._may_tell("replicas"):
            logger.error(
                "%d replica(s) took an admission within %d ms and store.min_replicas is %d: requests get 503 until "
                "there are enough",
                *(replicas, sent.timeout_ms, sent.replicas),
            )

    def _lost(self, connection: ScriptConnection, lost: list[Sent]) -> None:
        calls = [sent for sent in lost if isinstance(sent, Call)]
        for sent in lost:
            if isinstance(sent, Wait):
                calls += [call for call, _ in sent.held]
        self._unreplicated.clear()
        if self._connection is connection:
            self._connection = None
        if calls:
            self._note_health(healthy=False, error=ConnectError("the connection was closed"))
        self._try_again(calls)

    def _try_again(self, calls: list[Call]) -> None:
        for call in calls:
            call.tries += 1
            if call.tries >= TRIES:
                self._fail(call, may_have_happened=call.sent > 0)
            elif not call.reply.done():
                self._waiting.append(call)
        if self._waiting and self._turn_ends is None:
            self._turn_ends = asyncio.get_running_loop().call_soon(self._end_turn)

    def _fail(self, call: Call, *, may_have_happened: bool, refusal: str = "") -> None:
        if not call.reply.done():
            call.reply.set_exception(StoreUnavailable(may_have_happened=may_have_happened, refusal=refusal))

    def _note_refusal(self, script: str, refusal: str) -> None:
        code = refusal.partition(" ")[0]
        self.healthy = False
        self._metrics.store_health(healthy=False)
        if self._may_tell(code):
            advice = ADVICE.get(code, "see its log")
            logger.error(
                "the store refused the script %s (%s): %s. Requests get 503 until then", script, refusal, advice
            )

    def _may_tell(self, what: str) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._told.get(what, -SILENCE_S) < SILENCE_S:
            return False
        self._told[what] = now
        return True

    def _note_health(self, *, healthy: bool, error: Exception | None = None) -> None:
        if healthy == self.healthy:
            return
        self.healthy = healthy
        self._metrics.store_health(healthy=healthy)
        if not healthy:
            advice = ADVICE.get(str(error).partition(" ")[0], "")
            logger.error(
                "the store cannot be reached (%r)%s: requests get 503 until it can", error, advice and f": {advice}"
            )
        elif self._may_tell("again"):
            logger.warning("the store answers again")
