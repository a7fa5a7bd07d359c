"""The index of teams: which there are, in the order of their ids.

On one server it is one sorted set. On a Cluster it has parts, each in the same run of slots as its teams, and so on the
same node as nearly all of them: a team is made while other nodes are away, and a walk goes part by part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proxy.metering.redis.cluster.reads import ClusterReads
from proxy.metering.redis.cluster.slots import SLOTS, slot_of_key, tag_within
from proxy.metering.redis.pool import StoreReads, ask, ask_all, names_after, names_command
from proxy.metering.redis_store import keys as key_names

PARTS = 64
"""On a Cluster. Where it changes, an index that was written before is not found."""

NAMES_AT_FIRST = 8
"""Of each part, beside its share of what is asked for."""


class TeamIndex:
    """The teams of one store. Everything here raises StoreUnavailable where it cannot be asked."""

    def __init__(self, redis: StoreReads) -> None:
        """Ask ``redis``."""
        self._redis = redis
        self._is_cluster = isinstance(redis, ClusterReads)
        self.parts: Sequence[str] = [key_names.TEAMS]
        """The sorted sets that the index is made of: teams of one server that became a Cluster are in the first."""
        if self._is_cluster:
            self.parts = [key_names.TEAMS, *map(_part, range(PARTS))]

    async def enter(self, team: str) -> None:
        """Put a team into it. One that has no record does no harm."""
        part = _part(slot_of_key(key_names.team_record(team)) * PARTS // SLOTS) if self._is_cluster else key_names.TEAMS
        await ask(self._redis, "ZADD", part, 0, team)

    async def after(self, team: str | None, *, inclusive: bool = False, count: int, prefix: str = "") -> list[str]:
        """Up to ``count`` teams in the order of their ids, from ``team`` on; only those that begin with ``prefix``."""

        async def read(parts: Sequence[str], count: int) -> dict[str, list[str]]:
            commands = [names_command(part, team, inclusive=inclusive, count=count, prefix=prefix) for part in parts]
            replies = await ask_all(self._redis, commands)
            return {part: [name.decode() for name in some] for part, some in zip(parts, replies, strict=True)}

        share = min(count, count // len(self.parts) * 2 + NAMES_AT_FIRST) if self._is_cluster else count
        found = await read(self.parts, share)
        names = _first(found, count)
        # Such a part may have more before the last of the names.
        short = [
            part
            for part, some in found.items()
            if len(some) == share < count and (len(names) < count or some[-1] < names[-1])
        ]
        if short:
            names = _first(found | await read(short, count), count)
        return names

    async def part_after(self, part: str, team: str | None, *, count: int) -> list[str]:
        """The same within one of ``parts``."""
        return await names_after(self._redis, part, team, count=count)


def _first(found: Mapping[str, Sequence[str]], count: int) -> list[str]:
    # A team may be in two parts, one of them from before the store became a Cluster.
    return sorted({name for names in found.values() for name in names})[:count]


def _part(number: int) -> str:
    width = SLOTS // PARTS
    return f"{key_names.TEAMS}:{{{tag_within(number * width, (number + 1) * width - 1)}}}"
