"""What the admin API answers with: records, what they were charged, and pages of lists, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple
from typing import Any

from aiohttp import web

from proxy.domain.billing.tallies import Sums, largest
from proxy.domain.limits import Account, KeyRecord, TeamRecord, UserUsage
from proxy.domain.money import NO_MONEY, Money
from proxy.metering.ledger.people_usage import PeopleTally
from proxy.metering.ledger.walk import StreamPage
from proxy.metering.redis_store.charges import Charges
from proxy.web.public.key import usage_view, user_limits_view
from proxy.web.public.models import json_response
from proxy.web.times import iso_time


def key_view(record: KeyRecord, money: Money = NO_MONEY) -> dict[str, Any]:
    """A key as an operator sees it; its secret is known to nobody."""
    return {
        "id": record.id,
        "team": record.team,
        **_account(record, money),
        "expires_at": iso_time(record.expires_ms),
        "revoked_at": iso_time(record.revoked_ms),
    }


def team_view(record: TeamRecord, money: Money = NO_MONEY) -> dict[str, Any]:
    """A team as an operator sees it."""
    return {"id": record.id, **_account(record, money), "deleted_at": iso_time(record.revoked_ms)}


def _account(record: Account, money: Money) -> dict[str, Any]:
    return {
        "name": record.name,
        "limits": asdict(record.limits),
        **money.beside({"granted_units": record.granted_units}, "granted_units"),
        "usage": usage_view(record, money),
        "images": record.images,
        "created_at": iso_time(record.created_ms),
    }


def charges_view(
    account: Account, by_model: Mapping[str, Charges], by_day: Mapping[str, Charges], money: Money
) -> dict[str, Any]:
    """What a key or a team has used: per limit, by model and by UTC day."""
    return {
        "id": account.id,
        "limits": usage_view(account, money),
        "images": account.images,
        **money.beside({"overage_units": account.overage_units}, "overage_units"),
        "by_model": _charges(by_model, money),
        "by_day": _charges(by_day, money),
    }


def user_view(usage: UserUsage, money: Money) -> dict[str, Any]:
    """What an end user has used."""
    return {"id": usage.user, "limits": user_limits_view(usage, money)}


def people_view(
    found: PeopleTally, headings: Mapping[str, Sums], limit: int, money: Money, **asked: str | None
) -> dict[str, Any]:
    """What end users or tags were charged, the largest first; ``asked`` is what was asked for."""

    def shown(sums: Sums) -> dict[str, Any]:
        return money.beside(asdict(sums), "quota_units")

    first, names, others = largest(headings, limit)
    return {
        **asked,
        "complete": found.is_complete,
        "total": shown(found.tally.all),
        "data": [{"name": name, **shown(sums)} for name, sums in first],
        "others": {"names": names, **shown(others)} if names else None,
    }


def days_view(days: Mapping[str, Mapping[str, Charges]], money: Money) -> dict[str, dict[str, Any]]:
    """What was charged by UTC day, and each day by model."""
    sums = {day: Charges(*map(sum, zip(*map(astuple, models.values()), strict=True))) for day, models in days.items()}
    return {day: {**view, "by_model": _charges(days[day], money)} for day, view in _charges(sums, money).items()}


def _charges(charges: Mapping[str, Charges], money: Money) -> dict[str, dict[str, Any]]:
    return {
        name: money.beside({"images": each.images, "quota_units": each.quota_units}, "quota_units")
        for name, each in charges.items()
    }


def list_response(items: list[dict[str, Any]], next_cursor: str | None) -> web.Response:
    """A page of a list."""
    return json_response({"data": items, "next_cursor": next_cursor})


def stream_response(items: list[dict[str, Any]], page: StreamPage[Any]) -> web.Response:
    """A page of a list that grows: its end says where to go on later."""
    return json_response({"data": items, "next_cursor": page.next_cursor, "resume_cursor": page.resume_cursor})
