"""What a key and its team may spend, how fast and on what; and how much of it is gone.

The same limits exist on both, and a request has to fit into all of them. ``admit.lua`` decides; what is here shows it,
and spares whoever has nothing left a large upload.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from proxy.domain.errors import InsufficientQuota

EVERY_MODEL = ("*",)

QUOTAS = ("quota_units", "quota_units_per_day", "quota_units_per_month")
RATES = ("requests", "images")
_HEADER_NAMES = {
    kind: tuple(f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset")) for kind in RATES
}
NUMBERS = (*QUOTAS, *(f"{kind}_per_minute" for kind in RATES), "concurrent_requests")
"""Every limit that is a number."""

MINUTE_US = 60_000_000
SECOND_US = 1_000_000
SECOND_MS = 1_000


@dataclass(frozen=True, slots=True)
class UserLimits:
    """What one end user may use of a key or a team; None is no limit. Days and months are UTC."""

    quota_units_per_day: int | None = None
    quota_units_per_month: int | None = None
    images_per_minute: int | None = None
    concurrent_requests: int | None = None


@dataclass(frozen=True, slots=True)
class LimitsPerUser(UserLimits):
    """The limits of each end user; those in ``users``, by the names that the ledger has, have others instead.

    Whoever names no user is one of them, and named ``""``.
    """

    users: Mapping[str, UserLimits] = field(default_factory=dict)

    def of(self, user: str) -> UserLimits:
        """The limits of one user."""
        return self.users.get(user, self)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a key or a team; None is no limit. Days and months are UTC.

    ``models`` are exact ids, ``prefix/*`` or ``*``.
    """

    quota_units: int | None = None
    quota_units_per_day: int | None = None
    quota_units_per_month: int | None = None
    requests_per_minute: int | None = None
    images_per_minute: int | None = None
    concurrent_requests: int | None = None
    models: tuple[str, ...] = EVERY_MODEL
    limits_per_user: LimitsPerUser | None = None


@dataclass(frozen=True, slots=True)
class QuotaUsage:
    """One limit and its counters, in quota units. ``limit`` has the grants in it; None is no limit.

    ``window`` is the day (``YYYY-MM-DD``) or the month (``YYYY-MM``) that is counted, None for a total.
    """

    limit: int | None
    posted: int
    reserved: int
    window: str | None = None

    @property
    def remaining(self) -> int | None:
        """What can still be reserved; never below 0, and None where there is no limit."""
        return None if self.limit is None else max(0, self.limit - self.posted - self.reserved)


class RateUsage(NamedTuple):
    """One rate limit: how many may come a minute, how many could now, and when all of them could, in microseconds."""

    limit: int
    remaining: int
    reset_us: int


@dataclass(frozen=True, slots=True)
class UserUsage:
    """What an end user has used of a key or a team, since it has limits of each user.

    ``quotas`` are by day and by month, ``images`` is None where there is no rate limit, ``held`` is how many requests
    hold a reservation.
    """

    user: str
    limits: UserLimits
    quotas: Mapping[str, QuotaUsage]
    images: RateUsage | None
    held: int


@dataclass(frozen=True, slots=True)
class Account:
    """A key or a team as the store knows it. Times are in milliseconds since the epoch.

    ``quotas`` are by the names in ``QUOTAS``, ``rates`` by those in ``RATES`` that have a limit; ``held`` is how many
    requests hold a reservation.
    """

    id: str
    team: str
    name: str
    limits: Limits
    quotas: Mapping[str, QuotaUsage]
    rates: Mapping[str, RateUsage]
    held: int
    granted_units: int
    overage_units: int
    images: int
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None

    @property
    def quota(self) -> QuotaUsage:
        """The quota in total."""
        return self.quotas["quota_units"]


class KeyRecord(Account):
    """One API key, without its secret."""

    __slots__ = ()


class TeamRecord(Account):
    """One team; ``id`` and ``team`` are the same. One that is revoked has had all its keys revoked with it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from."""

    key: KeyRecord
    team: TeamRecord

    def may_use(self, *names: str) -> bool:
        """Whether both the key and its team may use the model by one of its ``names``: its id, or an alias."""
        return all(any(may_use(account.limits.models, name) for name in names) for account in (self.key, self.team))


def check_can_pay(caller: Caller, least_units: int) -> None:
    """Refuse whoever could not even pay ``least_units``, before anything large is read. Raises InsufficientQuota."""
    for whose, account in (("the key", caller.key), ("its team", caller.team)):
        for name, quota in account.quotas.items():
            remaining = quota.remaining
            if remaining is not None and remaining < least_units:
                raise InsufficientQuota(
                    f"An image needs at least {least_units:,} quota units and {whose} has {remaining:,} left "
                    f"({name}: limit {quota.limit:,}, used {quota.posted:,}, "
                    f"reserved by requests in progress {quota.reserved:,})."
                )


def may_use(models: tuple[str, ...], model_id: str) -> bool:
    """Whether a list of exact ids, ``prefix/*`` and ``*`` holds the model. ``admit.lua`` decides by the same rule."""
    return any(
        pattern in ("*", model_id) or (pattern.endswith("/*") and model_id.startswith(pattern[:-1]))
        for pattern in models
    )


def rate_usage(limit: int, due_us: int, *, now_us: int, burst_us: int) -> RateUsage:
    """A rate limit by the generic cell rate algorithm, as ``admit.lua`` has it.

    ``due_us`` is when the next one would be due if all came evenly, ``burst_us`` how much of the rate limit may come at
    once.
    """
    interval_us = -(-MINUTE_US // limit)
    reset_us = max(0, due_us - now_us)
    return RateUsage(limit, max(0, (max(burst_us, interval_us) - reset_us) // interval_us), reset_us)


def rate_limit_headers(rates: Sequence[tuple[str, RateUsage]]) -> dict[str, str]:
    """``x-ratelimit-*`` of each kind, as OpenAI has them (https://platform.openai.com/docs/guides/rate-limits)."""
    headers = {}
    for kind, (limit, remaining, reset_us) in rates:
        limit_name, remaining_name, reset_name = _HEADER_NAMES[kind]
        headers[limit_name] = str(limit)
        headers[remaining_name] = str(remaining)
        headers[reset_name] = _duration(reset_us)
    return headers


def whole_seconds(wait_us: int) -> int:
    """A wait for ``Retry-After`` (RFC 9110 section 10.2.3), at least 1 and rounded up: waiting so long is enough."""
    return max(1, math.ceil(wait_us / SECOND_US))


def _duration(microseconds: int) -> str:
    """As OpenAI writes it: ``120ms``, ``8.64s``, ``6m0s``."""
    milliseconds = -(-microseconds // 1_000)
    if milliseconds < SECOND_MS:
        return f"{milliseconds}ms"
    minutes, rest_ms = divmod(milliseconds, 60 * SECOND_MS)
    return (f"{minutes}m" if minutes else "") + f"{rest_ms / SECOND_MS:g}s"
