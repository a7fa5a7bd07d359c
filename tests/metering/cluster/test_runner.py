"""What the runner of a Cluster makes of each reply of a node, without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest

from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.cluster import runner as cluster_runner
from proxy.metering.redis.cluster.address import parse_cluster_url
from proxy.metering.redis.cluster.runner import REDIRECTS_AT_ONCE, ClusterRunner
from proxy.metering.redis.cluster.slots import SLOTS, slot_of_key
from proxy.metering.redis.cluster.topology import SlotMap, SlotRange
from proxy.metering.redis.connection import Call
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.telemetry.metrics import Metrics
from tests.support.polling import eventually
from tests.support.virtual_time import now_s, run

A, B, C = ("a", 1), ("b", 2), ("c", 3)
KEY = "lm:{acme}:leases"
TIMEOUT_S = 0.1
RETRY_S = 0.01


class Node(ScriptRunner):
    """Keeps what it is sent."""

    def __init__(self, url: str, **named: Any) -> None:
        super().__init__(url, Metrics(), timeout_s=1, **named)
        self.calls: list[Call] = []
        self.was_left = False

    def submit_call(self, call: Call) -> Call:
        self.calls.append(call)
        return call

    def refuse(self, refusal: str) -> None:
        """Answer the last call with an error, as ``ScriptRunner`` does."""
        call = self.calls[-1]
        if self._router is None or not self._router.take_refused(call, refusal):
            self._fail(call, may_have_happened=call.tries > 0, refusal=refusal)

    def lose(self) -> None:
        """Lose the connection on which the last call was sent."""
        assert self._router is not None
        self.calls[-1].sent = 1.0
        self._router.take_lost([self.calls[-1]])

    def let_go(self) -> None:
        self.was_left = True
        assert self._router is not None
        self._router.take_lost([self.calls[-1]])

    def greet(self) -> None:
        assert self._router is not None
        self._router.connected(self._url)
        for callback in self.on_connected:
            callback()


class Runner(ClusterRunner):
    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(parse_cluster_url("redis+cluster://a:1"), Metrics(), Node, timeout_s=timeout_s)
        self.says = SlotMap([SlotRange(0, SLOTS - 1, A)], frozenset((A, B)), 1, is_whole=True)
        self.readings = 0

        async def ask(_place: object) -> SlotMap:
            self.readings += 1
            return self.says

        monkeypatch.setattr(self._topology, "_ask", ask)

    def node(self, place: tuple[str, int]) -> Node:
        node = self._nodes[place]
        assert isinstance(node, Node)
        return node

    def begin(self) -> Call:
        call = self.submit(load_script("renew"), (KEY,), ("id", 1, "req_1"))
        call.reply.add_done_callback(lambda reply: reply.cancelled() or reply.exception())
        return call


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr(cluster_runner, "RETRY_S", RETRY_S)
    return Runner(monkeypatch)


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The same in virtual time, with a runner that knows its nodes: however busy the machine, nothing comes late."""

    async def on_known_nodes(runner: Runner, **others: Any) -> None:
        await runner._topology.refresh()
        try:
            await test(runner=runner, **others)
        finally:
            await runner.close()

    @wraps(test)
    def ran(**given: Any) -> None:
        run(on_known_nodes(**given))

    return ran


@virtually
async def test_a_call_is_sent_on_and_the_next_one_goes_there_at_once(runner: Runner) -> None:
    call = runner.begin()
    runner.node(A).refuse(f"MOVED {slot_of_key(KEY)} b:2")
    assert runner.node(B).calls == [call]
    runner.begin()
    assert len(runner.node(B).calls) == 2
    # A node that does not know its name is where the last one was.
    runner.node(B).refuse(f"MOVED {slot_of_key(KEY)} :3")
    assert runner._nodes.keys() >= {("b", 3)}


@virtually
async def test_a_node_that_is_being_given_the_slot_is_asked_once(runner: Runner) -> None:
    call = runner.begin()
    runner.node(A).refuse(f"ASK {slot_of_key(KEY)} c:3")
    assert runner.node(C).calls == [call]
    assert call.route is not None
    assert call.route.asks
    runner.begin()
    assert len(runner.node(A).calls) == 2
    runner.node(C).refuse("TRYAGAIN Multiple keys request during rehashing of slot")
    await eventually(lambda: runner.node(A).calls[-1] is call)
    assert not call.route.asks


@virtually
async def test_nodes_that_do_not_agree_are_asked_with_pauses(runner: Runner) -> None:
    call = runner.begin()
    for number in range(REDIRECTS_AT_ONCE):
        here, there = (A, "b:2") if number % 2 == 0 else (B, "a:1")
        runner.node(here).refuse(f"MOVED {slot_of_key(KEY)} {there}")
    sent = len(runner.node(A).calls) + len(runner.node(B).calls)
    assert sent == REDIRECTS_AT_ONCE
    await eventually(lambda: len(runner.node(A).calls) + len(runner.node(B).calls) == sent + 1)
    assert not call.reply.done()


@pytest.mark.parametrize("refusal", ["CLUSTERDOWN Hash slot not served", "LOADING x", "READONLY x", "MASTERDOWN x"])
@virtually
async def test_what_passes_is_waited_for_and_not_for_ever(runner: Runner, refusal: str) -> None:
    began, readings, call = now_s(), runner.readings, runner.begin()
    tried = 0
    while not call.reply.done():
        if len(runner.node(A).calls) > tried:
            tried += 1
            runner.node(A).refuse(refusal)
        await asyncio.sleep(0.001)
    with pytest.raises(StoreUnavailable) as refused:
        await call.reply
    assert not refused.value.may_have_happened
    assert refused.value.refusal == refusal
    assert 2 * TIMEOUT_S < now_s() - began <= 2 * TIMEOUT_S + 2 * RETRY_S
    assert tried > 3
    assert runner.readings > readings


@virtually
async def test_a_slot_that_is_half_moved_is_waited_for_longer(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_runner, "MOVING_S", 0.4)
    began, call = now_s(), runner.begin()
    tried = 0
    while not call.reply.done():
        if len(runner.node(A).calls) > tried:
            tried += 1
            runner.node(A).refuse("TRYAGAIN x")
        await asyncio.sleep(0.001)
    assert isinstance(call.reply.exception(), StoreUnavailable)
    assert 0.4 < now_s() - began <= 0.4 + 2 * RETRY_S


@virtually
async def test_any_other_refusal_ends_the_call(runner: Runner) -> None:
    call = runner.begin()
    runner.node(A).refuse("WRONGTYPE x")
    with pytest.raises(StoreUnavailable):
        await call.reply


@virtually
async def test_a_lost_call_is_made_again_where_the_slot_is_now(runner: Runner) -> None:
    call = runner.begin()
    runner.says = SlotMap([SlotRange(0, SLOTS - 1, B)], frozenset((A, B)), 2, is_whole=True)
    runner.node(A).lose()
    # At once on a new connection: that one may just have been idle for too long.
    assert len(runner.node(A).calls) == 2
    runner.node(A).lose()
    old = runner.node(A)
    await eventually(lambda: B in runner._nodes and call in runner.node(B).calls)
    assert old.was_left
    assert A not in runner._nodes
    runner.node(B).refuse("WRONGTYPE x")
    with pytest.raises(StoreUnavailable) as refused:
        await call.reply
    # The first node may have done it.
    assert refused.value.may_have_happened


@virtually
async def test_who_comes_to_a_node_that_is_known_to_be_away_does_not_wait_again(runner: Runner) -> None:
    runner.begin()
    runner.node(A).lose()
    await asyncio.sleep(0.25)
    late, began = runner.begin(), now_s()
    assert runner._router is None
    runner.take_lost([late])
    with pytest.raises(StoreUnavailable) as refused:
        await late.reply
    assert not refused.value.may_have_happened
    assert now_s() == began
    # Once it has been reached, it is waited for again.
    runner.node(A).greet()
    again = runner.begin()
    runner.take_lost([again])
    assert not again.reply.done()


@virtually
async def test_a_new_connection_is_told_only_of_its_own_teams(runner: Runner) -> None:
    half = SLOTS // 2
    runner.says = SlotMap(
        [SlotRange(0, half - 1, A), SlotRange(half, SLOTS - 1, B)], frozenset((A, B)), 2, is_whole=True
    )
    await runner._topology.refresh()
    names = [f"lm:{{team-{number}}}:leases" for number in range(20)]
    told: list[Call] = []

    def tell() -> None:
        told.extend(runner.submit(load_script("renew"), (name,), ("id", 1)) for name in names)

    runner.begin()
    runner.on_connected.append(tell)
    place = A if slot_of_key(KEY) < half else B
    before = len(runner.node(place).calls)
    runner.node(place).greet()
    own = [name for name in names if (slot_of_key(name) < half) == (place is A)]
    assert len(runner.node(place).calls) - before == len(own) > 0
    assert [call.reply.cancelled() for call in told] == [name not in own for name in names]


async def test_a_cluster_that_nobody_knows_fails_what_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(monkeypatch)

    async def fail(_place: object) -> SlotMap:
        raise OSError("nobody")

    monkeypatch.setattr(runner._topology, "_ask", fail)
    call = runner.begin()
    with pytest.raises(StoreUnavailable):
        await call.reply
    assert not runner.healthy
    assert not await runner.ping()
    await runner.close()


@virtually
async def test_closing_fails_what_is_under_way(runner: Runner) -> None:
    call = runner.begin()
    runner.node(A).refuse("TRYAGAIN x")
    await runner.close()
    with pytest.raises(StoreUnavailable):
        await call.reply
