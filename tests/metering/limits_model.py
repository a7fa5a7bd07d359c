"""All limits of a key and its team in plain Python: what the scripts have to decide and to count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta

from proxy.domain.limits import Limits, UserLimits

MINUTE_US = 60_000_000
KEPT_US = 3_600_000_000
"""A user's counters, after their windows are over."""


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
class ModelUser(ModelAccount):
    """An end user of a key or a team: nothing of it is remembered when its windows are over and it holds nothing."""

    until_us: int = 0

    def forget(self, now_us: int) -> None:
        """Begin anew, where all is over."""
        if not self.held and self.until_us + KEPT_US <= now_us:
            self.until_us = self.posted = self.reserved = 0
            self.by_window.clear()
            self.due_us.clear()

    def take(self, day: str, units: int, images: int, now_us: int) -> None:
        """Reserve."""
        super().take(day, units, images, now_us)
        month, days = date.fromisoformat(day).replace(day=1), timedelta(days=1)
        next_month = (month + 31 * days).replace(day=1)
        end = date.fromisoformat(day) + days if self.limits.quota_units_per_month is None else next_month
        end_us = int(datetime(end.year, end.month, end.day, tzinfo=UTC).timestamp()) * 1_000_000
        self.until_us = max(self.until_us, end_us, self.due_us.get("images", 0))


@dataclass
class ModelStore:
    """A team with its keys, their end users, and a clock that is moved by hand."""

    team: ModelAccount
    keys: dict[str, ModelAccount]
    now_us: int
    burst_us: int
    users: dict[tuple[str, str], ModelUser] = field(default_factory=dict)

    def users_of(self, key_id: str, user: str) -> list[tuple[str, ModelUser]]:
        """The counters that a request of ``user`` counts in, by whose limits of each user they are."""
        found = []
        for scope, whose, account in (("key", key_id, self.keys[key_id]), ("team", "", self.team)):
            per_user = account.limits.limits_per_user
            if per_user is not None:
                found.append((f"{scope}_user", self.user(whose, user, per_user.of(user))))
        return found

    def user(self, whose: str, user: str, limits: UserLimits) -> ModelUser:
        """One user of a key, or with an empty id of the team."""
        one = self.users.setdefault((whose, user), ModelUser(Limits()))
        own = {each.name: getattr(limits, each.name) for each in fields(UserLimits)}
        one.limits = Limits(**own)
        one.forget(self.now_us)
        return one

    @property
    def day(self) -> str:
        """The UTC day."""
        return datetime.fromtimestamp(self.now_us / 1_000_000, UTC).strftime("%Y-%m-%d")

    def refusal(self, key_id: str, user: str, units: int, images: int) -> tuple[str, str, str, int] | None:
        """Kind, scope, limit and wait in microseconds of what refuses a request; None admits it."""
        accounts = (("key", self.keys[key_id]), ("team", self.team), *self.users_of(key_id, user))
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
