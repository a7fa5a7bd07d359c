"""Limits of each end user, and what one of them has used, as they stand in Redis."""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass

import orjson

from proxy.domain.limits import LimitsPerUser, UserLimits

KEPT_MS = 3_600_000
"""After a user's windows are over; see ``users.lua``."""

_counters = struct.Struct(">10q")


@dataclass(frozen=True, slots=True)
class UserCounters:
    """What a user has used, see ``users.lua``; days are counted since the epoch."""

    day: int = 0
    day_reserved: int = 0
    day_posted: int = 0
    month: int = 0
    month_reserved: int = 0
    month_posted: int = 0
    held: int = 0
    images_due_us: int = 0
    since: int = 0
    until_ms: int = 0


NOTHING_USED = UserCounters()


def read_counters(stored: bytes | None, now_ms: int) -> UserCounters:
    """What is stored of a user, and still counts."""
    if stored is None:
        return NOTHING_USED
    counters = UserCounters(*_counters.unpack(stored))
    return NOTHING_USED if not counters.held and counters.until_ms + KEPT_MS <= now_ms else counters


def write_limits_per_user(limits: LimitsPerUser) -> str:
    """As a record has them: JSON, which ``pack_limits.lua`` reads."""
    return orjson.dumps(asdict(limits)).decode()


def read_limits_per_user(text: str | None) -> LimitsPerUser | None:
    """The other way round."""
    if text is None:
        return None
    fields = orjson.loads(text)
    users = {user: UserLimits(**own) for user, own in fields.pop("users").items()}
    return LimitsPerUser(**fields, users=users)
