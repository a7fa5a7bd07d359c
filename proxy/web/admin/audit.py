"""``GET /admin/v1/audit``: who changed what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from proxy.domain.limits import KeyRecord, TeamRecord
from proxy.domain.money import NO_MONEY, Money
from proxy.metering.ledger.audit_log import AuditEntry, AuditLog
from proxy.web.admin.queries import AuditQuery, read_query, since_ms
from proxy.web.admin.views import key_view, stream_response, team_view
from proxy.web.admin.wire import AuditPage
from proxy.web.server.routes import Access, Route, Scope
from proxy.web.times import iso_time


class AuditRoutes:
    """Handler of the audit record."""

    def __init__(self, log: AuditLog, money: Money = NO_MONEY) -> None:
        """Read ``log``, and show quotas in ``money`` as well."""
        self._log = log
        self._money = money

    def routes(self) -> Sequence[Route]:
        """Where the handler stands."""
        where = "/admin/v1/audit"
        return (Route("GET", where, self.list, Access.VIEWER, {200: AuditPage}, query=AuditQuery, scope=Scope.QUERY),)

    async def list(self, request: web.Request) -> web.Response:
        """Changes over the admin API: of one team oldest first, of all team by team, each oldest first."""
        query = read_query(request, AuditQuery)
        page = await self._log.list_entries(
            query.team, since_ms=since_ms(query.since), cursor=query.cursor, limit=query.limit
        )
        return stream_response([_view(entry, self._money) for entry in page.items], page)


def _view(entry: AuditEntry, money: Money) -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": iso_time(entry.at_ms),
        "team": entry.team,
        "by": entry.by,
        "request": entry.request,
        "action": entry.action,
        "target": entry.target,
        "before": _record_view(entry.before, money),
        "after": _record_view(entry.after, money),
    }


def _record_view(record: KeyRecord | TeamRecord | None, money: Money) -> dict[str, Any] | None:
    if record is None:
        return None
    return team_view(record, money) if isinstance(record, TeamRecord) else key_view(record, money)
