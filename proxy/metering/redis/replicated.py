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
from proxy.metering.redis.cluster.address import SCHEMES as CLUSTER
from proxy.metering.redis.cluster.address import parse_cluster_url
from proxy.metering.redis.cluster.runner import ClusterRunner
from proxy.metering.redis.connection import Asking, Call, Question, Sent, Wait, pack_call
from proxy.metering.redis.health import StoreHealth
from proxy.metering.redis.runner import Router, ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

ADMIT = "admit"
"""The script whose effects replicas should have before anybody counts on them."""


def open_runner(url: str, metrics: Metrics, *, timeout_s: float, min_replicas: int = 0) -> ScriptRunner:
    """What runs scripts at ``url``; an admission counts only when ``min_replicas`` replicas have it as well."""

    def make(url: str, *, health: StoreHealth | None = None, router: Router | None = None) -> ScriptRunner:
        if not min_replicas:
            return ScriptRunner(url, metrics, timeout_s=timeout_s, health=health, router=router)
        return ReplicatedRunner(
            url, metrics, timeout_s=timeout_s, min_replicas=min_replicas, health=health, router=router
        )

    if not url.startswith(CLUSTER):
        return make(url)
    return ClusterRunner(parse_cluster_url(url), metrics, make, timeout_s=timeout_s)


class ReplicatedRunner(ScriptRunner):
    """Runs admissions on a connection of their own, and all else as ever."""

    def __init__(
        self,
        url: str,
        metrics: Metrics,
        *,
        timeout_s: float,
        min_replicas: int,
        health: StoreHealth | None = None,
        router: Router | None = None,
    ) -> None:
        """Give replicas half of ``timeout_s`` to take an admission."""
        super().__init__(url, metrics, timeout_s=timeout_s, health=health, router=router)
        self._admissions = _Admissions(
            url,
            metrics,
            timeout_s=timeout_s,
            min_replicas=min_replicas,
            health=self.health,
            router=router,
            others_are_up=self._is_up,
        )

    def submit_call(self, call: Call) -> Call:
        """As ``ScriptRunner.submit_call``."""
        return self._admissions.submit_call(call) if call.script.name == ADMIT else super().submit_call(call)

    def let_go(self) -> None:
        """As ``ScriptRunner.let_go``."""
        self._admissions.let_go()
        super().let_go()

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
        router: Router | None,
        others_are_up: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(url, metrics, timeout_s=timeout_s, health=health, router=router)
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
        calls = [*super()._take_waiting()]
        wait = self._wait = Wait(self._min_replicas, int(self._timeout_s * 500))
        # WAIT counts from the connection's last write, and what an earlier connection admitted is not written again.
        if any(call.tries for call in calls if isinstance(call, Call)):
            wait.mark = self._write()
            calls.append(wait.mark)
        return [*calls, wait]

    def _write(self) -> Call:
        """A call whose reply nobody waits for."""
        reply = asyncio.get_running_loop().create_future()
        reply.add_done_callback(lambda done: done.cancelled() or done.exception())
        script = load_script("ping")
        return Call(script, b"ping", pack_call(script, (self._ping_key,), ("ping",)), reply)

    def _take(self, sent: Sent, reply: Any) -> None:
        if isinstance(sent, Wait):
            self._wait = None
            self._release(sent, replicas=reply if isinstance(reply, int) and sent.counts else 0)
            self._end_turn()
        elif isinstance(sent, Asking | Question):
            pass
        elif self._wait is not None and sent is self._wait.mark:
            # Without it the connection may have written nothing, and the number means nothing.
            self._wait.counts = type(reply) is list
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
