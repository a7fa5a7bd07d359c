"""Slots: which part of a Cluster a key belongs to (https://redis.io/docs/latest/commands/cluster-keyslot/)."""

from __future__ import annotations

from functools import lru_cache
from itertools import count

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from proxy.metering.redis.connection import WORDS_BEFORE_KEYS, unpack

SLOTS: int = REDIS_CLUSTER_HASH_SLOTS
TAGS_REMEMBERED = 65_536


def slot_of_command(command: bytes) -> int:
    """The slot of a packed call: that of its first hash tag, which is in its first key, or else that of this key."""
    begin = command.find(b"{") + 1
    if not begin:
        return int(key_slot(unpack(command)[WORDS_BEFORE_KEYS]))
    return _slot_of_tag(command[begin : command.index(b"}", begin)])


def slot_of_key(name: str) -> int:
    """The slot of a key."""
    return int(key_slot(name.encode()))


@lru_cache(TAGS_REMEMBERED)
def _slot_of_tag(tag: bytes) -> int:
    return int(key_slot(tag))


@lru_cache(1_024)
def tag_within(first: int, last: int) -> str:
    """A hash tag whose slot is from ``first`` to ``last``: always the same one."""
    return next(tag for tag in map(str, count()) if first <= _slot_of_tag(tag.encode()) <= last)
