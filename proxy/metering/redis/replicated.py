"""``store.min_replicas``: an admission counts only where replicas have it as well.

``WAIT`` blocks its connection (https://redis.io/docs/latest/commands/wait/), for long where a replica is gone. So
admissions have a connection of their own: a settlement is money that is owed already, and waits for no replica.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.connection import Call, Sent, Wait, pack_call
from proxy.metering.redis.health import StoreHealth
from proxy.metering.redis.runner import PING, ScriptRunner
from proxy.metering.redis.scripts import Script, load_script
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

ADMIT = "admit"
"""The script whose effects replicas should have before anybody counts on them."""


def open_runner(url: str, metrics: Metrics, *, timeout_s: float, min_replicas: int = 0) -> ScriptRunner:
    """What runs scripts at ``url``; an admission counts only when ``min_replicas`` replicas have it as well."""
    if not min_replicas:
        return ScriptRunner(url, metrics, timeout_s=timeout_s)
    return ReplicatedRunner(url, metrics, timeout_s=timeout_s, min_replicas=min_replicas)


class ReplicatedRunner(ScriptRunner):
    """Runs admissions on a connection of their own, and all else as ever."""

    def __init__(self, url: str, metrics: Metrics, *, timeout_s: float, min_replicas: int) -> None:
        """Give replicas half of ``timeout_s`` to take an admission."""
        super().__init__(url, metrics, timeout_s=timeout_s)
        self._admissions = _Admissions(
            url, metrics, timeout_s=timeout_s, min_replicas=min_replicas, health=self.health, others_are_up=self._is_up
        )

    def submit_command(self, script: Script, call_id: str, command: bytes) -> Call:
        """As ``ScriptRunner.submit_command``."""
        if script.name == ADMIT:
            return self._admissions.submit_command(script, call_id, command)
        return super().submit_command(script, call_id, command)

    async def close(self) -> None:
        """As ``ScriptRunner.close``."""
        await self._admissions.close()
        await super().close()

    async def _is_up(self) -> None:
        """Raises StoreUnavailable."""
        if not await self.ping():
            raise StoreUnavailable(may_have_happened=False)


class _Admissions(ScriptRunner):
    """Sends what has come up to now and one ``WAIT`` behind it, and all that comes until its reply together after it.

    Redis would not look at a second call before that reply either.
    """

    def __init__(
        self,
        url: str,
        metrics: Metrics,
        *,
        timeout_s: float,
        min_replicas: int,
        health: StoreHealth,
        others_are_up: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(url, metrics, timeout_s=timeout_s, health=health)
        self._min_replicas = min_replicas
        self._others_are_up = others_are_up
        self._wait: Wait | None = None
        """What has been sent and has no reply yet."""

    async def _before_connecting(self) -> None:
        # After an outage the other connection renews the leases first: an admission would take them for expired.
        await self._others_are_up()

    def _end_turn(self) -> None:
        if self._wait is None:
            super()._end_turn()
        else:
            self._turn_ends = None

    def _take_waiting(self) -> Sequence[Sent]:
        self._wait = Wait(self._min_replicas, int(self._timeout_s * 500))
        calls = [*super()._take_waiting()]
        # WAIT counts from the connection's last write, and what an earlier connection admitted is not written again.
        mark = [self._write()] if any(call.tries for call in calls if isinstance(call, Call)) else []
        return [*calls, *mark, self._wait]

    def _write(self) -> Call:
        """A call whose reply nobody waits for."""
        reply = asyncio.get_running_loop().create_future()
        reply.add_done_callback(lambda done: done.cancelled() or done.exception())
        script = load_script("ping")
        return Call(script, b"ping", pack_call(script, (PING,), ("ping",)), reply)

    def _take(self, sent: Sent, reply: Any) -> None:
        if isinstance(sent, Wait):
            self._wait = None
            self._release(sent, replicas=reply if isinstance(reply, int) else 0)
            self._end_turn()
        elif self._wait is not None and type(reply) is list:
            self._wait.held.append((sent, reply))
        else:
            self._take_reply(sent, reply)

    def _release(self, wait: Wait, *, replicas: int) -> None:
        for call, held in wait.held:
            if replicas >= wait.replicas or held[:2] != [call.id, b"admitted"]:
                self._take_reply(call, held)
            else:
                self._fail(call, may_have_happened=True)
        if replicas < wait.replicas and self.health.may_log("replicas"):
            logger.error(
                "%d replica(s) took an admission within %d ms and store.min_replicas is %d: requests get 503 until "
                "there are enough",
                *(replicas, wait.timeout_ms, wait.replicas),
            )

    def _calls_of(self, lost: list[Sent]) -> list[Call]:
        held = [call for sent in lost if isinstance(sent, Wait) for call, _ in sent.held]
        self._wait = None
        return [*super()._calls_of(lost), *held]
