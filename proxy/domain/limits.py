"""What a key may spend and on what, and how much of it is gone."""

from __future__ import annotations

from dataclasses import dataclass

EVERY_MODEL = ("*",)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one key. ``quota_units`` is a total, None is no limit.

    ``models`` are exact ids, ``prefix/*`` or ``*``.
    """

    quota_units: int | None = None
    models: tuple[str, ...] = EVERY_MODEL


@dataclass(frozen=True, slots=True)
class QuotaUsage:
    """One limit and its counters, in quota units. ``limit`` has the grants in it; None is no limit."""

    limit: int | None
    posted: int
    reserved: int

    @property
    def remaining(self) -> int | None:
        """What can still be reserved; never below 0, and None where there is no limit."""
        return None if self.limit is None else max(0, self.limit - self.posted - self.reserved)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One API key as the store knows it, without its secret. Times are in milliseconds since the epoch."""

    id: str
    team: str
    name: str
    limits: Limits
    quota: QuotaUsage
    granted_units: int
    overage_units: int
    images: int
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None


def may_use(models: tuple[str, ...], model_id: str) -> bool:
    """Whether a list of exact ids, ``prefix/*`` and ``*`` holds the model. ``admit.lua`` decides by the same rule."""
    return any(
        pattern in ("*", model_id) or (pattern.endswith("/*") and model_id.startswith(pattern[:-1]))
        for pattern in models
    )
