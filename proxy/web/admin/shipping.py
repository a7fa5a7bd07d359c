"""The admin API of ``lightmeter ledger ship``: where each team's ledger ends, and how far it has been shipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from proxy.metering.ledger.shipped import LedgerHead, ShippedLedger
from proxy.web.admin.bodies import ShippedBody, read_request
from proxy.web.admin.queries import HeadsQuery, read_query, since_ms, split_entry_id
from proxy.web.admin.views import list_response
from proxy.web.admin.wire import Time
from proxy.web.intake.request_body import BodyLimits
from proxy.web.public.models import json_response
from proxy.web.server.routes import Access, Route
from proxy.web.times import iso_time

HEADS_A_PAGE = 100
"""A script for each: requests to the gateway should not wait long for them."""

NO_ENTRY = "0-0"


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid")


class HeadView(_View):
    """Where a team's ledger ends, and how far it was trimmed and shipped; null where there is no such entry.

    ``read_at`` is when this was read, by the store's clock.
    """

    team: str
    last: str | None
    trimmed: str | None
    shipped: str | None
    read_at: Time


class HeadPage(_View):
    """A page of them."""

    data: list[HeadView]
    next_cursor: str | None


class ShippedView(_View):
    """Whose report was taken, and of how many teams."""

    shipper: str
    teams: int


class ShippingRoutes:
    """Handlers of ``/admin/v1/ledger/heads`` and ``/admin/v1/ledger/shipped``."""

    def __init__(self, shipped: ShippedLedger, limits: BodyLimits) -> None:
        """Read from ``shipped``, and report to it."""
        self._shipped = shipped
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        heads, report = "/admin/v1/ledger/heads", "/admin/v1/ledger/shipped"
        return (
            Route("GET", heads, self.list_heads, Access.VIEWER, {200: HeadPage}, query=HeadsQuery),
            Route("POST", report, self.report, Access.ADMIN, {200: ShippedView}, ShippedBody),
        )

    async def list_heads(self, request: web.Request) -> web.Response:
        """Where each team's ledger ends, and how far this shipper has shipped it; in the order of the teams' ids."""
        query = read_query(request, HeadsQuery)
        limit = min(HEADS_A_PAGE, query.limit)
        page = await self._shipped.heads(query.shipper, cursor=query.cursor, limit=limit)
        return list_response([_view(head) for head in page.items], page.next_cursor)

    async def report(self, request: web.Request) -> web.Response:
        """Note how far a shipper is: what ``accounting.ledger_days`` trims may depend on it."""
        body = await read_request(request, ShippedBody, self._limits)
        positions = dict(split_entry_id(entry) for entry in body.entries)
        await self._shipped.report(body.shipper, positions, since_ms(body.caught_up_to))
        return json_response({"shipper": body.shipper, "teams": len(positions)})


def _view(head: LedgerHead) -> dict[str, Any]:
    def entry(stream_id: str) -> str | None:
        return None if stream_id == NO_ENTRY else f"{head.team}_{stream_id}"

    return {
        "team": head.team,
        "last": entry(head.last),
        "trimmed": entry(head.trimmed),
        "shipped": entry(head.shipped),
        "read_at": iso_time(head.read_ms),
    }
