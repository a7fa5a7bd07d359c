"""The admin API of keys, on a listener of its own, behind a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from time import time
from typing import Any

from aiohttp import web

from proxy.domain.errors import Conflict, InvalidRequest
from proxy.domain.limits import Account, KeyRecord
from proxy.metering.accounts.keys import KeyRegistry
from proxy.metering.ledger.walk import StreamPage
from proxy.metering.redis_store.charges import Charges
from proxy.web.admin.access import actor
from proxy.web.admin.bodies import (
    Body,
    CreateKeyBody,
    GrantBody,
    RotateBody,
    UpdateKeyBody,
    limits_of,
    milliseconds,
    read_body,
)
from proxy.web.admin.queries import KeysQuery, read_query
from proxy.web.admin.wire import GrantedKeyView, KeyPage, KeyView, NewKeyView, UsageView
from proxy.web.intake.request_body import BodyLimits, read_json_body
from proxy.web.public.key import usage_view
from proxy.web.public.models import json_response
from proxy.web.server.routes import Access, Route
from proxy.web.times import iso_time


class KeyAdminRoutes:
    """Handlers of ``/admin/v1/keys``."""

    def __init__(self, registry: KeyRegistry, limits: BodyLimits) -> None:
        """Change and read keys through ``registry``."""
        self._registry = registry
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        keys, key = "/admin/v1/keys", "/admin/v1/keys/{id}"
        read, change = Access.VIEWER, Access.ADMIN
        return (
            Route("POST", keys, self.create_key, change, {201: NewKeyView}, CreateKeyBody, errors=(Conflict,)),
            Route("GET", keys, self.list_keys, read, {200: KeyPage}, query=KeysQuery),
            Route("GET", key, self.show_key, read, {200: KeyView}),
            Route("PATCH", key, self.update_key, change, {200: KeyView}, UpdateKeyBody, errors=(Conflict,)),
            Route("DELETE", key, self.revoke_key, change, {200: KeyView}),
            Route(
                *("POST", f"{key}/rotate", self.rotate_key, change, {200: NewKeyView}, RotateBody),
                body_may_be_left_out=True,
                errors=(Conflict,),
            ),
            Route("POST", f"{key}/grants", self.grant, change, {201: GrantedKeyView}, GrantBody, errors=(Conflict,)),
            Route("GET", f"{key}/usage", self.usage, read, {200: UsageView}),
        )

    async def create_key(self, request: web.Request) -> web.Response:
        """Make a key; its text is in this answer and nowhere else."""
        body = await self._read(request, CreateKeyBody)
        expires_ms = milliseconds(body.expires_at)
        if expires_ms is not None and expires_ms <= time() * 1000:
            raise InvalidRequest("'expires_at' should be in the future.", param="expires_at")
        record, text = await self._registry.create_key(
            body.team, name=body.name, limits=limits_of(body.limits), expires_ms=expires_ms, by=actor(request)
        )
        return json_response({**key_view(record), "key": text}, status=201)

    async def list_keys(self, request: web.Request) -> web.Response:
        """Keys, of one team or of all."""
        query = read_query(request, KeysQuery)
        page = await self._registry.list_keys(query.team, cursor=query.cursor, limit=query.limit)
        return list_response([key_view(record) for record in page.items], page.next_cursor)

    async def show_key(self, request: web.Request) -> web.Response:
        """One key."""
        return json_response(key_view(await self._registry.get_key(request.match_info["id"])))

    async def update_key(self, request: web.Request) -> web.Response:
        """Change what is given."""
        body = await self._read(request, UpdateKeyBody)
        record = await self._registry.update_key(request.match_info["id"], body.changes(), by=actor(request))
        return json_response(key_view(record))

    async def revoke_key(self, request: web.Request) -> web.Response:
        """Refuse the key from the next request on; its record and its ledger stay."""
        return json_response(key_view(await self._registry.revoke_key(request.match_info["id"], by=actor(request))))

    async def rotate_key(self, request: web.Request) -> web.Response:
        """A new text for the key; it too is shown only once."""
        body = await read_request(request, RotateBody, self._limits, may_be_left_out=True)
        record, text = await self._registry.rotate_key(
            request.match_info["id"], overlap_ms=body.overlap_seconds * 1000, by=actor(request)
        )
        return json_response({**key_view(record), "key": text})

    async def grant(self, request: web.Request) -> web.Response:
        """Top up a key's quota, or take back of it."""
        body = await self._read(request, GrantBody)
        record, entry_id = await self._registry.grant(
            request.match_info["id"], quota_units=body.quota_units, reason=body.reason, by=actor(request)
        )
        return json_response({**key_view(record), "ledger_entry": entry_id}, status=201)

    async def usage(self, request: web.Request) -> web.Response:
        """What a key has used: per limit, by model and by day."""
        return json_response(charges_view(*await self._registry.usage(request.match_info["id"])))

    async def _read(self, request: web.Request, kind: type[Body]) -> Body:
        return await read_request(request, kind, self._limits)


async def read_request(
    request: web.Request, kind: type[Body], limits: BodyLimits, *, may_be_left_out: bool = False
) -> Body:
    """A request's body as ``kind``. Raises InvalidRequest."""
    if request.body_exists:
        text = await read_json_body(request, limit_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
        return read_body(kind, text)
    if may_be_left_out:
        return kind()
    raise InvalidRequest("The request has no body; it should be a JSON object.")


# --- Views ------------------------------------------------------------------------------------------------------------


def key_view(record: KeyRecord) -> dict[str, Any]:
    """A key as an operator sees it; its secret is known to nobody."""
    return {
        "id": record.id,
        "team": record.team,
        "name": record.name,
        "limits": asdict(record.limits),
        "granted_units": record.granted_units,
        "usage": usage_view(record),
        "images": record.images,
        "created_at": iso_time(record.created_ms),
        "expires_at": iso_time(record.expires_ms),
        "revoked_at": iso_time(record.revoked_ms),
    }


def charges_view(account: Account, by_model: Mapping[str, Charges], by_day: Mapping[str, Charges]) -> dict[str, Any]:
    """What a key or a team has used: per limit, by model and by UTC day."""
    return {
        "id": account.id,
        "limits": usage_view(account),
        "images": account.images,
        "overage_units": account.overage_units,
        "by_model": _charges(by_model),
        "by_day": _charges(by_day),
    }


def _charges(charges: Mapping[str, Charges]) -> dict[str, dict[str, int]]:
    return {name: {"images": each.images, "quota_units": each.quota_units} for name, each in charges.items()}


def list_response(items: list[dict[str, Any]], next_cursor: str | None) -> web.Response:
    """A page of a list."""
    return json_response({"data": items, "next_cursor": next_cursor})


def stream_response(items: list[dict[str, Any]], page: StreamPage[Any]) -> web.Response:
    """A page of a list that grows: its end says where to go on later."""
    return json_response({"data": items, "next_cursor": page.next_cursor, "resume_cursor": page.resume_cursor})
