"""What the admin API reads of a Cluster: each command goes to the node of its key, all of one node in one round trip.

Only commands whose first word after the name is their one key are asked for here.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)

from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.cluster.slots import slot_of_key
from proxy.metering.redis.cluster.topology import Topology
from proxy.metering.redis.hosts import Hosts, Place

Words = Sequence[str | int]
Send = Callable[[Redis, Sequence[Words]], Awaitable[list[Any]]]

MOVING_S = 15.0
RETRY_S = 0.05


@dataclass(slots=True)
class _Question:
    """A command; ``at`` is a node that has to be asked though the slot is not its own yet."""

    words: Words
    at: Place | None = None
    reply: Any = None
    is_done: bool = False


class ClusterReads:
    """Reads from the nodes of one Cluster, through a pool of connections to each."""

    def __init__(
        self, hosts: Hosts, make_pool: Callable[[str], ConnectionPool], send: Send, *, timeout_s: float
    ) -> None:
        """Find the nodes by ``hosts``; ``make_pool`` makes a pool for an address, ``send`` sends commands through one.

        ``send`` gives an error of the node in place of a reply, and raises what happens to the connection.
        """
        self._hosts = hosts
        self._make_pool = make_pool
        self._send = send
        self.timeout_s = timeout_s
        self._patience_s = 2 * timeout_s
        self._topology = Topology(hosts, timeout_s=timeout_s)
        self._nodes: dict[Place, Redis] = {}

    async def ask(self, *words: str | int) -> Any:
        """The reply to one command that may be sent twice. Raises StoreUnavailable, or StoreBusy."""
        (reply,) = await self.ask_all([words])
        return reply

    async def ask_all(self, commands: Sequence[Words]) -> list[Any]:
        """The replies to commands that may be sent twice. Raises StoreUnavailable, or StoreBusy."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        questions = [_Question(words) for words in commands]
        await self._find_nodes()
        while left := [each for each in questions if not each.is_done]:
            by_node: dict[Place, list[_Question]] = defaultdict(list)
            for each in left:
                by_node[each.at or self._owner(each)].append(each)
            patience_s = await self._ask_nodes(by_node)
            if patience_s is not None:
                if loop.time() - began > patience_s:
                    raise StoreUnavailable
                await asyncio.sleep(RETRY_S)
        return [each.reply for each in questions]

    async def ask_primaries(self, *words: str | int) -> dict[Place, Any]:
        """The replies of all primaries to a command without a key. Raises StoreUnavailable where one gives none."""
        await self._find_nodes()
        places = list(self._topology.primaries)
        replies = await asyncio.gather(*(self._ask_one(place, words) for place in places))
        return dict(zip(places, replies, strict=True))

    async def primaries(self) -> dict[Place, Redis]:
        """A client of each primary. Raises StoreUnavailable."""
        await self._find_nodes(again=True)
        return {place: self._node(place) for place in self._topology.primaries}

    def place_of(self, name: str) -> Place | None:
        """The node that has a key."""
        return self._topology.owner(slot_of_key(name))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._topology.close()
        for node in self._nodes.values():
            await node.connection_pool.aclose()

    async def _find_nodes(self, *, again: bool = False) -> None:
        try:
            if again or not self._topology.is_known:
                await self._topology.refresh()
        except OSError as error:
            raise StoreUnavailable from error

    def _owner(self, question: _Question) -> Place:
        owner = self._topology.owner(slot_of_key(str(question.words[1])))
        if owner is None:
            self._topology.refresh_soon()
            raise StoreUnavailable
        return owner

    def _node(self, place: Place) -> Redis:
        node = self._nodes.get(place)
        if node is None:
            node = self._nodes[place] = Redis(connection_pool=self._make_pool(self._hosts.url_of(place)))
        return node

    async def _ask_one(self, place: Place, words: Words) -> Any:
        try:
            (reply,) = await self._send(self._node(place), [words])
        except StoreUnavailable:
            self._topology.refresh_soon()
            raise
        except (RedisError, OSError, RuntimeError) as error:
            # Another one may have taken over meanwhile.
            self._topology.refresh_soon()
            raise StoreUnavailable from error
        if isinstance(reply, Exception):
            raise StoreUnavailable from reply
        return reply

    async def _ask_nodes(self, by_node: dict[Place, list[_Question]]) -> float | None:
        """Ask each node; how long those are waited for that have no reply yet and wait for something, or else None."""
        found = await asyncio.gather(
            *(self._ask_node(place, each) for place, each in by_node.items()), return_exceptions=True
        )
        for result in found:
            if isinstance(result, BaseException):
                raise result
        return max((each for each in found if isinstance(each, float)), default=None)

    async def _ask_node(self, place: Place, questions: list[_Question]) -> float | None:
        commands: list[Words] = []
        for each in questions:
            commands += [("ASKING",), each.words] if each.at else [each.words]
        try:
            replies = await self._send(self._node(place), commands)
        except StoreUnavailable:
            # There is no time left to ask again, but whoever asks next may find another one there.
            self._topology.refresh_soon()
            raise
        except (RedisError, OSError, RuntimeError):
            self._topology.refresh_soon()
            return self._patience_s
        patience_s = None
        at = 0
        for each in questions:
            at += 2 if each.at else 1
            patience_s = self._take(each, replies[at - 1]) or patience_s
        return patience_s

    def _take(self, question: _Question, reply: Any) -> float | None:
        """As ``_ask_nodes``. Raises StoreUnavailable."""
        was_asked, question.at = question.at, None
        if not isinstance(reply, Exception):
            question.reply, question.is_done = reply, True
            return None
        if isinstance(reply, MovedError):
            self._topology.moved(reply.slot_id, self._place(question, reply))
            # A node that was just asked on the way of another one's word may not know yet.
            return self._patience_s if was_asked else None
        if isinstance(reply, AskError):
            question.at = self._place(question, reply)
            return None
        if isinstance(reply, TryAgainError):
            return MOVING_S
        if isinstance(reply, (ClusterDownError, ReadOnlyError)):
            self._topology.refresh_soon()
            return self._patience_s
        raise StoreUnavailable from reply

    def _place(self, question: _Question, error: AskError) -> Place:
        owner = self._topology.owner(slot_of_key(str(question.words[1])))
        return (error.host or (owner or self._hosts.places[0])[0], error.port)
