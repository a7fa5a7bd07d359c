"""All limits of a key and its team in plain Python: what the scripts have to decide and to count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from proxy.domain.limits import Limits

MINUTE_US = 60_000_000


@dataclass
class ModelAccount:
    """A key or a team. Windows are counted for every day and month there is, since none is ever forgotten here."""

    limits: Limits
    granted: int = 0
    posted: int = 0
    reserved: int = 0
    by_window: Counter[tuple[str, str]] = field(default_factory=Counter)
    held: int = 0
    due_us: dict[str, int] = field(default_factory=dict)

    def quotas(self, day: str) -> list[tuple[str, int | None, int, int]]:
        """Name, limit, posted and reserved of each."""
        limits, month = self.limits, day[:7]
        total = None if limits.quota_units is None else limits.quota_units + self.granted
        windows = self.by_window
        return [
            ("quota_units", total, self.posted, self.reserved),
            ("quota_units_per_day", limits.quota_units_per_day, windows[day, "posted"], windows[day, "reserved"]),
            (
                *("quota_units_per_month", limits.quota_units_per_month),
                *(windows[month, "posted"], windows[month, "reserved"]),
            ),
        ]

    def wait_us(self, kind: str, amount: int, now_us: int, burst_us: int) -> int:
        """How long until ``amount`` may come, 0 for now and -1 for never."""
        limit: int | None = getattr(self.limits, f"{kind}_per_minute")
        if limit is None:
            return 0
        interval = -(-MINUTE_US // limit)
        most = max(burst_us, interval)
        if amount * interval > most:
            return -1
        return max(0, max(self.due_us.get(kind, 0), now_us) + amount * interval - most - now_us)

    def take(self, day: str, units: int, images: int, now_us: int) -> None:
        """Reserve."""
        self.reserved += units
        self.held += 1
        for window in (day, day[:7]):
            self.by_window[window, "reserved"] += units
        for kind, amount in (("requests", 1), ("images", images)):
            limit = getattr(self.limits, f"{kind}_per_minute")
            if limit is not None:
                self.due_us[kind] = max(self.due_us.get(kind, 0), now_us) + amount * -(-MINUTE_US // limit)

    def end(self, day: str, units: int, charged: int) -> None:
        """Release ``units`` and charge."""
        self.reserved -= units
        self.posted += charged
        self.held -= 1
        for window in (day, day[:7]):
            self.by_window[window, "reserved"] -= units
            self.by_window[window, "posted"] += charged


@dataclass
class ModelStore:
    """A team with its keys, and a clock that is moved by hand."""

    team: ModelAccount
    keys: dict[str, ModelAccount]
    now_us: int
    burst_us: int

    @property
    def day(self) -> str:
        """The UTC day."""
        return datetime.fromtimestamp(self.now_us / 1_000_000, UTC).strftime("%Y-%m-%d")

    def refusal(self, key_id: str, units: int, images: int) -> tuple[str, str, str, int] | None:
        """Kind, scope, limit and wait in microseconds of what refuses a request; None admits it."""
        accounts = (("key", self.keys[key_id]), ("team", self.team))
        for scope, account in accounts:
            for name, limit, posted, reserved in account.quotas(self.day):
                if limit is not None and posted + reserved + units > limit:
                    return "insufficient_quota", scope, name, 0
        found: list[tuple[str, str, int]] = []
        for scope, account in accounts:
            for kind, amount in (("requests", 1), ("images", images)):
                wait_us = account.wait_us(kind, amount, self.now_us, self.burst_us)
                if wait_us:
                    found.append((scope, kind, wait_us))
            most = account.limits.concurrent_requests
            if most is not None and account.held >= most:
                found.append((scope, "concurrency", 1_000_000))
        if not found:
            return None
        never = [one for one in found if one[2] == -1]
        scope, kind, wait_us = never[-1] if never else max(found, key=lambda one: one[2])
        return "rate_limited", scope, kind, wait_us
