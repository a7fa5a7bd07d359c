"""Which node has which slots, as the nodes say it: read when first needed, and again when something has moved."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.metering.redis.cluster.slots import SLOTS
from proxy.metering.redis.connection import ConnectError, ask_once
from proxy.metering.redis.hosts import Hosts, Place

logger = logging.getLogger(__name__)

ASKED_AT_ONCE = 5
"""Nodes of which the first good answer counts."""

PAUSE_S = 0.05
"""Between two readings, at the least."""


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Slots from ``first`` to ``last``, of the node at ``primary``."""

    first: int
    last: int
    primary: Place


@dataclass(frozen=True, slots=True)
class SlotMap:
    """What one node says: ``is_whole`` where the Cluster takes commands, by it; a larger ``epoch`` is newer."""

    ranges: Sequence[SlotRange]
    nodes: frozenset[Place]
    epoch: int
    is_whole: bool


class Topology:
    """The nodes of one Cluster."""

    def __init__(self, hosts: Hosts, *, timeout_s: float) -> None:
        """Ask the nodes at ``hosts`` at first, and those that they name later, each for ``timeout_s`` seconds."""
        self.hosts = hosts
        self._timeout_s = timeout_s
        self._owners: list[Place | None] = [None] * SLOTS
        self._primaries: dict[Place, SlotRange] = {}
        self._nodes: set[Place] = set()
        self._epoch = -1
        self._refreshing: asyncio.Task[None] | None = None
        self._read_at = float("-inf")
        self.on_change: list[Callable[[], None]] = []
        """Called after each reading that came to something."""

    @property
    def is_known(self) -> bool:
        """Whether any node has told of the others."""
        return self._epoch >= 0

    def owner(self, slot: int) -> Place | None:
        """The primary that has the slot, None where nobody says."""
        return self._owners[slot]

    @property
    def primaries(self) -> Mapping[Place, SlotRange]:
        """Each primary that has slots, and some of them."""
        return self._primaries

    def moved(self, slot: int, place: Place) -> None:
        """A node says that the slot is at ``place`` now."""
        self._owners[slot] = place
        self._primaries.setdefault(place, SlotRange(slot, slot, place))
        self._nodes.add(place)
        self.refresh_soon()

    def refresh_soon(self) -> asyncio.Task[None]:
        """Read it again; many who ask at a time get one reading."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh_after_pause())
            self._refreshing.add_done_callback(_read_outcome)
        return self._refreshing

    async def refresh(self) -> None:
        """The same, and wait for it. Raises ConnectError where no node answers."""
        await asyncio.shield(self.refresh_soon())

    async def close(self) -> None:
        """Read no more."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait((self._refreshing,))

    async def _refresh_after_pause(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._read_at + PAUSE_S - loop.time())
        try:
            found = await self._ask_some()
        finally:
            self._read_at = loop.time()
        owners: list[Place | None] = [None] * SLOTS
        for each in found.ranges:
            owners[each.first : each.last + 1] = [each.primary] * (each.last + 1 - each.first)
        self._primaries = {each.primary: each for each in found.ranges}
        self._owners, self._nodes, self._epoch = owners, set(found.nodes), found.epoch
        for callback in self.on_change:
            callback()

    async def _ask_some(self) -> SlotMap:
        known = list(self._nodes - set(self.hosts.places))
        seeds = list(self.hosts.places)
        random.shuffle(known)
        random.shuffle(seeds)
        asked = [*known, *seeds]
        best: SlotMap | None = None
        errors: list[str] = []
        for start in range(0, len(asked), ASKED_AT_ONCE):
            tasks = [asyncio.ensure_future(self._ask(place)) for place in asked[start : start + ASKED_AT_ONCE]]
            try:
                for answer in asyncio.as_completed(tasks):
                    try:
                        found = await answer
                    except (OSError, RuntimeError, ValueError) as error:
                        errors.append(str(error))
                        continue
                    if found.is_whole and found.epoch >= self._epoch:
                        return found
                    if best is None or (found.is_whole, found.epoch) > (best.is_whole, best.epoch):
                        best = found
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if best is None:
            raise ConnectError(f"no node of the Cluster answers: {errors[0] if errors else 'none is known'}")
        return best

    async def _ask(self, place: Place) -> SlotMap:
        commands = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
        info, slots = await ask_once(self.hosts.url_of(place), *commands, timeout_s=self._timeout_s)
        return read_slot_map(place, info, slots)


def read_slot_map(asked: Place, info: bytes, slots: Any) -> SlotMap:
    """What ``CLUSTER INFO`` and ``CLUSTER SLOTS`` say. One that does not know its own address is where it was asked."""
    state = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    ranges = []
    nodes = {asked}
    for (first, last), entry in _entries(slots):
        places = [(host or asked[0], port) for host, port in entry]
        nodes.update(places)
        ranges.append(SlotRange(first, last, places[0]))
    if not ranges:
        raise ValueError("it has no slots: make it a Cluster first")
    return SlotMap(ranges, frozenset(nodes), int(state["cluster_current_epoch"]), state["cluster_state"] == "ok")


def _entries(slots: Any) -> Iterable[tuple[tuple[int, int], list[Place]]]:
    """Ranges, and of each the primary and its replicas."""
    for first, last, *nodes in slots:
        yield (int(first), int(last)), [(_text(node[0]), int(node[1])) for node in nodes]


def _text(name: Any) -> str:
    text = name.decode() if isinstance(name, bytes) else name or ""
    return "" if text == "?" else text


def _read_outcome(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.debug("the nodes of the Cluster could not be read: %s", error)
