"""Runs scripts on a Cluster: each node has a runner with a connection of its own, and each call goes where its team is.

A node that has lost a team's slot says where it is now, and a call that had no reply is made again: every script is
idempotent by its id. No node waits for another one: what hangs there holds only the teams up that are there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from proxy.metering.redis.cluster.health import ClusterHealth
from proxy.metering.redis.cluster.slots import slot_of_command, tag_within
from proxy.metering.redis.cluster.topology import Topology
from proxy.metering.redis.connection import Call, ConnectError, Route
from proxy.metering.redis.hosts import Hosts, Place
from proxy.metering.redis.runner import PING, ScriptRunner
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

MOVING_S = 15.0
"""How long a call waits for a slot that is half here and half there (TRYAGAIN), in which it can be done nowhere."""

RETRY_S = 0.05
REDIRECTS_AT_ONCE = 4
"""So many nodes in a row may send a call on without a pause; more than that do not agree yet."""

IDLE_S = 5.0
"""How long a node without slots is kept that was being given one."""

ELSEWHERE = frozenset({"MOVED", "ASK"})
PASSING = frozenset({"CLUSTERDOWN", "MASTERDOWN", "LOADING", "READONLY"})
"""Refusals that end when the nodes have agreed on a new primary, or when it has read its data."""

MakeRunner = Callable[..., ScriptRunner]


class ClusterRunner(ScriptRunner):
    """Runs scripts on the nodes of a Cluster, or says StoreUnavailable within about twice ``timeout_s``."""

    def __init__(self, hosts: Hosts, metrics: Metrics, make_runner: MakeRunner, *, timeout_s: float) -> None:
        """Find the nodes by ``hosts`` when first asked; ``make_runner`` makes what runs scripts on one of them."""
        self._cluster_health = ClusterHealth(metrics)
        super().__init__("", metrics, timeout_s=timeout_s, health=self._cluster_health.of_all())
        self._make_runner = make_runner
        self._hosts = hosts
        self._patience_s = 2 * timeout_s
        self._topology = Topology(hosts, timeout_s=timeout_s)
        self._topology.on_change += [self._cluster_health.known, self._leave_nodes]
        self._nodes: dict[Place, ScriptRunner] = {}
        self._asked: dict[Place, float] = {}
        """When a node that was being given a slot was asked last."""
        self._failing_since: dict[Place, float] = {}
        self._later: dict[Call, asyncio.TimerHandle] = {}
        self._leaving: asyncio.TimerHandle | None = None
        self._pinging: set[asyncio.Task[bool]] = set()
        self._greeted: Place | None = None
        """The node whose new connection the callbacks are being called for."""
        self._closed = False

    # --- Sending ------------------------------------------------------------------------------------------------------

    def submit_call(self, call: Call) -> Call:
        """Send a call to the node that has its team.

        What ``on_connected`` submits for teams of other nodes than the connected one gets its reply cancelled.
        """
        slot = slot_of_command(call.command)
        if self._greeted is not None and self._topology.owner(slot) != self._greeted:
            call.reply.cancel()
            return call
        call.route = Route(slot, asyncio.get_running_loop().time())
        self._send(call)
        return call

    def place_of(self, command: bytes) -> Place | None:
        """As ``ScriptRunner.place_of``."""
        return self._topology.owner(slot_of_command(command))

    def _send(self, call: Call) -> None:
        self._later.pop(call, None)
        route = call.route
        if route is None or call.reply.done():
            return
        route.asks = False
        place = self._topology.owner(route.slot)
        if place is None:
            self._find_owner(call)
        else:
            self._send_to(place, call, route)

    def _send_to(self, place: Place, call: Call, route: Route) -> None:
        call.sent, route.place = 0.0, place
        if route.asks:
            self._asked[place] = asyncio.get_running_loop().time()
        self._node(place).submit_call(call)

    def _node(self, place: Place) -> ScriptRunner:
        node = self._nodes.get(place)
        if node is None:
            url = self._hosts.url_of(place)
            health = self._cluster_health.of_node(place)
            node = self._nodes[place] = self._make_runner(url, health=health, router=self)
            node.on_connected.append(partial(self._greet, place))
        return node

    def _find_owner(self, call: Call) -> None:
        if self._topology.is_known:
            self._topology.refresh_soon()
            self._send_later(call, self._patience_s)
            return
        reading = self._topology.refresh_soon()
        reading.add_done_callback(partial(self._send_found, call))

    def _send_found(self, call: Call, reading: asyncio.Task[None]) -> None:
        if self._topology.is_known and not self._closed:
            self._send(call)
        else:
            error = None if reading.cancelled() else reading.exception()
            self.health.failed(error if isinstance(error, Exception) else ConnectError("the Cluster is not known"))
            self._fail(call, may_have_happened=False)

    def _send_later(self, call: Call, patience_s: float) -> bool:
        """False where the call has been under way for longer than that, and nobody should wait for it any more."""
        loop, route = asyncio.get_running_loop(), call.route
        if self._closed or route is None or loop.time() - route.began > patience_s:
            return self._give_up(call)
        if not call.reply.done():
            self._later[call] = loop.call_later(RETRY_S, self._send, call)
        return True

    def _give_up(self, call: Call) -> bool:
        self._fail(call, may_have_happened=call.route is not None and call.route.in_doubt)
        return False

    def _greet(self, place: Place) -> None:
        self._greeted = place
        try:
            for callback in self.on_connected:
                callback()
        finally:
            self._greeted = None

    # --- What nodes give back -----------------------------------------------------------------------------------------

    def take_refused(self, call: Call, refusal: str) -> bool:
        """As ``Router`` says."""
        code, *words = refusal.split(" ")
        route = call.route
        if route is None or self._closed:
            return False
        if code in ELSEWHERE:
            return self._send_elsewhere(call, route, code, int(words[0]), words[1])
        if code == "TRYAGAIN":
            return self._retry(call, MOVING_S)
        if code in PASSING:
            self._topology.refresh_soon()
            return self._retry(call, self._patience_s)
        return False

    def _retry(self, call: Call, patience_s: float) -> bool:
        route = call.route
        if route is None or asyncio.get_running_loop().time() - route.began > patience_s:
            return False
        return self._send_later(call, patience_s)

    def _send_elsewhere(self, call: Call, route: Route, code: str, slot: int, name: str) -> bool:
        route.redirects += 1
        place = self._place_of(name, route.slot)
        if code == "MOVED":
            self._topology.moved(slot, place)
        if route.redirects % REDIRECTS_AT_ONCE == 0:
            return self._retry(call, self._patience_s)
        route.asks = code == "ASK"
        self._send_to(place, call, route)
        return True

    def _place_of(self, name: str, slot: int) -> Place:
        """Where a node says that another one is; without a host, it is where this one is."""
        host, _, port = name.rpartition(":")
        if not host:
            owner = self._topology.owner(slot)
            host = owner[0] if owner else self._hosts.places[0][0]
        return host.strip("[]"), int(port)

    def connected(self, url: str) -> None:
        """As ``Router`` says."""
        for place in [each for each in self._failing_since if self._hosts.url_of(each) == url]:
            del self._failing_since[place]

    def take_lost(self, calls: Sequence[Call]) -> None:
        """As ``Router`` says."""
        if not self._closed:
            self._topology.refresh_soon()
        now = asyncio.get_running_loop().time()
        for call in calls:
            call.tries += 1
            route = call.route
            if route is None:
                self._fail(call, may_have_happened=True)
                continue
            route.in_doubt = route.in_doubt or call.sent > 0
            since = self._failing_since.setdefault(route.place, now)
            if now - since > self._patience_s:
                # It is known to be away: who comes now need not find out again.
                self._give_up(call)
            elif call.tries == 1 and call.sent > 0 and not self._closed:
                self._send(call)
            else:
                self._send_later(call, self._patience_s)

    def ping_key(self, url: str) -> str:
        """As ``Router`` says."""
        for place, slots in self._topology.primaries.items():
            if self._hosts.url_of(place) == url:
                return f"{PING}:{{{tag_within(slots.first, slots.last)}}}"
        return PING

    def _leave_nodes(self) -> None:
        """Close what is no primary any more, so that a node which becomes one again is greeted anew."""
        primaries, now = self._topology.primaries, asyncio.get_running_loop().time()
        asked = {place for place, at in self._asked.items() if at > now - IDLE_S}
        for place in [each for each in self._nodes if each not in primaries and each not in asked]:
            node = self._nodes.pop(place)
            self._cluster_health.forget(place)
            self._asked.pop(place, None)
            self._failing_since.pop(place, None)
            node.let_go()
        if self._leaving is not None:
            self._leaving.cancel()
        if not asked.isdisjoint(self._nodes.keys() - primaries.keys()):
            self._leaving = asyncio.get_running_loop().call_later(IDLE_S, self._leave_nodes)

    # --- The whole ----------------------------------------------------------------------------------------------------

    async def ping(self) -> bool:
        """Whether any node answers now: the teams of those that do are served."""
        try:
            if not self._topology.is_known:
                await self._topology.refresh()
        except OSError as error:
            self.health.failed(error)
            return False
        tasks = {asyncio.create_task(self._node(place).ping()) for place in self._topology.primaries}
        self._pinging |= tasks
        for task in tasks:
            task.add_done_callback(self._pinging.discard)
        for answer in asyncio.as_completed(tasks):
            if await answer:
                return True
        return False

    async def close(self) -> None:
        """Close all connections; calls still under way fail."""
        self._closed = True
        await self._topology.close()
        if self._leaving is not None:
            self._leaving.cancel()
        for call, handle in list(self._later.items()):
            handle.cancel()
            self._give_up(call)
        self._later.clear()
        await asyncio.gather(*(node.close() for node in self._nodes.values()))
        if self._pinging:
            await asyncio.wait(self._pinging)
