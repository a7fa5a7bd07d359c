"""``GET /v1/key``: the caller's own limits and what is left of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from proxy.domain.errors import ShuttingDown
from proxy.domain.limits import RATES, SECOND_US, Account, Caller, QuotaUsage, RateUsage, UserUsage
from proxy.domain.money import NO_MONEY, Money
from proxy.domain.people import People
from proxy.metering.accounts.registry import KeyRegistry
from proxy.metering.redis_store.charges import Charges
from proxy.metering.store import Store
from proxy.web.public.models import json_response, read_own_key
from proxy.web.public.wire import OwnKeyQuery, OwnKeyView, OwnUsageView
from proxy.web.server.routes import Access, Route
from proxy.web.times import iso_time

KEY = "/v1/key"


class KeyRoutes:
    """Handlers of the caller's own key."""

    def __init__(self, store: Store, keys: KeyRegistry, people: People, money: Money = NO_MONEY) -> None:
        """Read keys from ``store``, and what ``keys`` were charged; show quotas in ``money`` as well.

        ``people`` says how end users are named.
        """
        self._store = store
        self._keys = keys
        self._people = people
        self._money = money

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        return (
            Route("GET", KEY, self.show, Access.KEY, {200: OwnKeyView}, query=OwnKeyQuery, errors=(ShuttingDown,)),
            Route("GET", f"{KEY}/usage", self.usage, Access.KEY, {200: OwnUsageView}, errors=(ShuttingDown,)),
        )

    async def show(self, request: web.Request) -> web.Response:
        """Limits, usage and remaining quota, of the key and of its team; and of one end user."""
        caller = await read_own_key(request, self._store)
        view = own_view(caller, self._money)
        asked, headers = request.query.get("user"), request.headers
        if asked is not None or self._people.said_by_header(headers):
            user = self._people.user(headers, {"user": asked}, caller.key.team)
            of_key, of_team = await self._keys.user_of_caller(caller, user)
            view["user"] = {"id": user, "limits": self._of_user(of_key), "team_limits": self._of_user(of_team)}
        return json_response(view)

    async def usage(self, request: web.Request) -> web.Response:
        """What the key was charged, by model and by UTC day."""
        caller = await read_own_key(request, self._store)
        _, by_model, by_day = await self._keys.usage(caller.key.id)
        return json_response({"id": caller.key.id, "by_model": self._shown(by_model), "by_day": self._shown(by_day)})

    def _of_user(self, usage: UserUsage | None) -> dict[str, Any] | None:
        return None if usage is None else user_limits_view(usage, self._money)

    def _shown(self, charges: Mapping[str, Charges]) -> dict[str, dict[str, Any]]:
        return {
            name: self._money.beside({"images": each.images, "quota_units": each.quota_units}, "quota_units")
            for name, each in charges.items()
        }


def own_view(caller: Caller, money: Money) -> dict[str, Any]:
    """A key as its owner sees it."""
    key, team = caller.key, caller.team
    return {
        "id": key.id,
        "team": key.team,
        "name": key.name,
        "limits": {**usage_view(key, money), "models": list(key.limits.models)},
        "team_limits": {**usage_view(team, money), "models": list(team.limits.models)},
        "images": key.images,
        "expires_at": iso_time(key.expires_ms),
    }


def usage_view(account: Account, money: Money) -> dict[str, Any]:
    """Every limit with its counters; rate limits and windows by the store's clock."""
    return {
        **{name: quota_view(quota, money) for name, quota in account.quotas.items()},
        **{f"{kind}_per_minute": rate_view(account.rates.get(kind)) for kind in RATES},
        "concurrent_requests": concurrency_view(account.limits.concurrent_requests, account.held),
    }


def user_limits_view(usage: UserUsage, money: Money) -> dict[str, Any]:
    """Every limit of an end user with its counters."""
    return {
        **{name: quota_view(quota, money) for name, quota in usage.quotas.items()},
        "images_per_minute": rate_view(usage.images),
        "concurrent_requests": concurrency_view(usage.limits.concurrent_requests, usage.held),
    }


def concurrency_view(limit: int | None, held: int) -> dict[str, Any]:
    """How many requests may be in progress, and are."""
    return {"limit": limit, "in_progress": held, "remaining": None if limit is None else max(0, limit - held)}


def quota_view(quota: QuotaUsage, money: Money) -> dict[str, Any]:
    """One quota and its counters."""
    view: dict[str, Any] = {
        "limit": quota.limit,
        "posted": quota.posted,
        "reserved": quota.reserved,
        "remaining": quota.remaining,
    }
    view = money.beside(view, *view)
    if quota.window is not None:
        view["window"] = quota.window
    return view


def rate_view(rate: RateUsage | None) -> dict[str, Any]:
    """One rate limit; None is no limit."""
    if rate is None:
        return {"limit": None, "remaining": None, "reset_seconds": 0}
    return {"limit": rate.limit, "remaining": rate.remaining, "reset_seconds": rate.reset_us / SECOND_US}
