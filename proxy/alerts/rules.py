"""Who is told of what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from proxy.domain.alerts import KINDS, QUOTA, Alert, quota_alerts, soft_limit_alerts
from proxy.domain.limits import Account, TeamRecord


class Sender(Protocol):
    """How somebody is told."""

    async def send(self, alert: Alert, alert_id: str) -> None:
        """Tell them. ``alert_id`` is the same each time that this alert is sent. Raises SendingError."""
        ...

    async def close(self) -> None:
        """Tell nobody any more."""
        ...


class SendingError(Exception):
    """They could not be told; it may be tried again."""


@dataclass(frozen=True)
class Rule:
    """One ``[[alerts]]``. ``at`` are percent; no ``teams`` are all of them; ``soft_limits`` are each team's."""

    name: str
    sender: Sender
    kinds: frozenset[str] = frozenset(KINDS)
    at: tuple[int, ...] = (50, 80, 100)
    teams: frozenset[str] = frozenset()
    expiry_days: int = 7
    soft_limits: Mapping[str, int] = field(default_factory=dict)

    def wants(self, alert: Alert) -> bool:
        """Whether whoever is behind this rule is told of it."""
        return alert.kind in self.kinds and (not self.teams or alert.team is None or alert.team in self.teams)

    def of_account(self, account: Account, *, refused: bool) -> Iterator[Alert]:
        """What there is to tell of an account's quotas."""
        if QUOTA in self.kinds:
            yield from quota_alerts(account, self.at, refused=refused)
        if isinstance(account, TeamRecord):
            yield from soft_limit_alerts(account, self.soft_limits, self.at)
