"""What somebody is told of in time: a quota nearly used, a key about to expire, a provider out of credit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy.domain.limits import Account, KeyRecord, QuotaUsage

QUOTA, SOFT_LIMIT, KEY_EXPIRY, PROVIDER_CREDIT = "quota", "soft_limit", "key_expiry", "provider_credit"
KINDS = (QUOTA, SOFT_LIMIT, KEY_EXPIRY, PROVIDER_CREDIT)

WHOLE = 100
"""Percent."""

DAY_MS = 86_400_000
WINDOW_S = {"quota_units_per_day": 2 * 86_400, "quota_units_per_month": 32 * 86_400, "quota_units": 400 * 86_400}
"""How long it is remembered that somebody was told of a quota: longer than its window."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that happens once: ``name`` is the same whoever notices it, and however often.

    ``team`` is None where it is no team's. ``text`` says it in a sentence, ``facts`` in figures. ``below`` are the
    names of those that it stands for as well: who is told of 80 % is not told of 50 % after that. It is remembered for
    ``remember_s`` seconds that somebody was told.
    """

    kind: str
    name: str
    team: str | None
    text: str
    facts: Mapping[str, Any]
    remember_s: int
    below: tuple[str, ...] = ()


def quota_alerts(account: Account, at: Sequence[int], *, refused: bool = False) -> Iterator[Alert]:
    """What of an account's quotas has passed one of the shares ``at``, in percent: for each quota the greatest.

    ``refused`` is whether a request was refused for want of quota: then the tightest one counts as used up, for less
    than what a request costs may be left of it.
    """
    limited = {name: quota for name, quota in account.quotas.items() if quota.limit is not None}
    tightest = min(limited, key=lambda name: limited[name].remaining or 0, default="")
    for name, quota in limited.items():
        is_used_up = refused and name == tightest
        yield from _crossed(account, QUOTA, name, quota, at, is_used_up=is_used_up)


def soft_limit_alerts(account: Account, limits: Mapping[str, int], at: Sequence[int]) -> Iterator[Alert]:
    """The same of ``limits`` by the names of quotas, which refuse nothing."""
    for name, limit in limits.items():
        yield from _crossed(account, SOFT_LIMIT, name, replace(account.quotas[name], limit=limit), at)


def _crossed(
    account: Account, kind: str, name: str, quota: QuotaUsage, at: Sequence[int], *, is_used_up: bool = False
) -> Iterator[Alert]:
    limit = quota.limit or 0
    passed = [share for share in sorted(at) if is_used_up or quota.posted * WHOLE >= share * max(1, limit)]
    if not passed:
        return
    what = "key" if isinstance(account, KeyRecord) else "team"
    # A limit that is raised, also by a grant, is another one.
    common = f"{kind}/{what}/{account.id}/{name}/{quota.window or 'total'}/{limit}"
    window = f" of {quota.window}" if quota.window else ""
    soft = "soft limit" if kind == SOFT_LIMIT else "quota"
    text = f"The {what} {account.id} has used {quota.posted:,} of {limit:,} quota units{window} ({soft} {name})."
    if is_used_up:
        text += f" A request was refused: {quota.remaining:,} are left."
    yield Alert(
        kind=kind,
        name=f"{common}/{passed[-1]}",
        team=account.team,
        text=text,
        facts={
            "account": account.id,
            "limit": name,
            "window": quota.window,
            "percent": passed[-1],
            "quota_units": limit,
            "posted": quota.posted,
            "reserved": quota.reserved,
            "refused": is_used_up,
        },
        remember_s=WINDOW_S[name],
        below=tuple(f"{common}/{share}" for share in passed[:-1]),
    )


def expiry_alert(key: KeyRecord, *, now_ms: int, days: int) -> Alert | None:
    """A key that expires within ``days``, and works until then."""
    if key.expires_ms is None or key.revoked_ms is not None or not now_ms < key.expires_ms <= now_ms + days * DAY_MS:
        return None
    hours = (key.expires_ms - now_ms) // 3_600_000
    return Alert(
        kind=KEY_EXPIRY,
        name=f"{KEY_EXPIRY}/{key.id}/{key.expires_ms}",
        team=key.team,
        text=f"The key {key.id} ({key.name or 'without a name'}) expires in {hours // 24} days and {hours % 24} hours.",
        facts={"account": key.id, "key_name": key.name, "expires_ms": key.expires_ms},
        remember_s=(days + 1) * 86_400,
    )


def credit_alert(provider: str, day: str) -> Alert:
    """A provider that refuses the gateway's account on a UTC day."""
    return Alert(
        kind=PROVIDER_CREDIT,
        name=f"{PROVIDER_CREDIT}/{provider}/{day}",
        team=None,
        text=f"The provider {provider} refuses this gateway's account: no credit or quota is left there, or it is not "
        "active. The gateway's log has the provider's own words.",
        facts={"provider": provider, "day": day},
        remember_s=2 * 86_400,
    )
