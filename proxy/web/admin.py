"""The admin wire: keys, usage and ledger, on a listener of its own, behind a token."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from time import time
from typing import Any

from aiohttp import web
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from proxy.domain.api_key import is_team_id, team_of
from proxy.domain.errors import InvalidRequest, NotFound
from proxy.domain.limits import Account, KeyRecord
from proxy.domain.settlement import LedgerEntry, Outcome
from proxy.metering.key_registry import Charges, KeyRegistry, LedgerFilter
from proxy.metering.middleware import BodyLimits
from proxy.metering.request_body import read_json_body
from proxy.web.admin_bodies import (
    Body,
    CreateKeyBody,
    GrantBody,
    RotateBody,
    UpdateKeyBody,
    limits_of,
    milliseconds,
    read_body,
)
from proxy.web.key import usage_view
from proxy.web.models import json_response
from proxy.web.times import iso_time

PAGE_LIMIT = 1_000
PAGE_DEFAULT = 100

_stream_id = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
_moment: TypeAdapter[AwareDatetime] = TypeAdapter(AwareDatetime)


class AdminRoutes:
    """Handlers of ``/admin/v1``."""

    def __init__(self, registry: KeyRegistry, limits: BodyLimits) -> None:
        """Change and read keys through ``registry``."""
        self._registry = registry
        self._limits = limits

    def routes(self) -> Sequence[web.RouteDef]:
        """Where each handler stands."""
        keys, key = "/admin/v1/keys", "/admin/v1/keys/{id}"
        return (
            web.post(keys, self.create_key),
            web.get(keys, self.list_keys),
            web.get(key, self.show_key),
            web.patch(key, self.update_key),
            web.delete(key, self.revoke_key),
            web.post(f"{key}/rotate", self.rotate_key),
            web.post(f"{key}/grants", self.grant),
            web.get(f"{key}/usage", self.usage),
            web.get("/admin/v1/ledger", self.list_ledger),
        )

    # --- Keys ---------------------------------------------------------------------------------------------------------

    async def create_key(self, request: web.Request) -> web.Response:
        """Make a key; its text is in this answer and nowhere else."""
        body = await self._read(request, CreateKeyBody)
        expires_ms = milliseconds(body.expires_at)
        if expires_ms is not None and expires_ms <= time() * 1000:
            raise InvalidRequest("'expires_at' should be in the future.", param="expires_at")
        record, text = await self._registry.create_key(
            body.team, name=body.name, limits=limits_of(body.limits), expires_ms=expires_ms
        )
        return json_response({**key_view(record), "key": text}, status=201)

    async def list_keys(self, request: web.Request) -> web.Response:
        """Keys, of one team or of all."""
        query = list_query(request, "team", "cursor", "limit")
        page = await self._registry.list_keys(_team(query), cursor=list_cursor(query), limit=list_limit(query))
        return list_response([key_view(record) for record in page.items], page.next_cursor)

    async def show_key(self, request: web.Request) -> web.Response:
        """One key."""
        return json_response(key_view(await self._registry.get_key(request.match_info["id"])))

    async def update_key(self, request: web.Request) -> web.Response:
        """Change what is given."""
        body = await self._read(request, UpdateKeyBody)
        return json_response(key_view(await self._registry.update_key(request.match_info["id"], body.changes())))

    async def revoke_key(self, request: web.Request) -> web.Response:
        """Refuse the key from the next request on; its record and its ledger stay."""
        return json_response(key_view(await self._registry.revoke_key(request.match_info["id"])))

    async def rotate_key(self, request: web.Request) -> web.Response:
        """A new text for the key; it too is told only once."""
        body = await self._read(request, RotateBody)
        record, text = await self._registry.rotate_key(request.match_info["id"], overlap_ms=body.overlap_seconds * 1000)
        return json_response({**key_view(record), "key": text})

    async def grant(self, request: web.Request) -> web.Response:
        """Top up a key's quota, or take back of it."""
        body = await self._read(request, GrantBody)
        record, entry_id = await self._registry.grant(
            request.match_info["id"], quota_units=body.quota_units, reason=body.reason
        )
        return json_response({**key_view(record), "ledger_entry": entry_id}, status=201)

    async def usage(self, request: web.Request) -> web.Response:
        """What a key has used: per limit, by model and by day."""
        return json_response(charges_view(*await self._registry.usage(request.match_info["id"])))

    # --- The ledger ---------------------------------------------------------------------------------------------------

    async def list_ledger(self, request: web.Request) -> web.Response:
        """Ledger entries, oldest first within a team."""
        query = list_query(request, "team", "key", "since", "outcome", "cursor", "limit")
        key_id, team = query.get("key"), _team(query)
        if key_id is not None:
            key_team = team_of(key_id)
            if key_team is None or team not in (None, key_team):
                raise InvalidRequest("'key' should be a key's id, of the team that 'team' names.", param="key")
            team = key_team
        outcome = query.get("outcome")
        if outcome is not None and outcome not in list(Outcome):
            raise InvalidRequest(f"'outcome' should be one of {', '.join(Outcome)}.", param="outcome")
        wanted = LedgerFilter(team=team, key_id=key_id, outcome=outcome, since_ms=_since(query))
        page = await self._registry.list_ledger(
            wanted, cursor=list_cursor(query, _ledger_team), limit=list_limit(query)
        )
        return list_response([entry_view(entry) for entry in page.items], page.next_cursor)

    async def _read(self, request: web.Request, kind: type[Body]) -> Body:
        return await read_request(request, kind, self._limits)


async def read_request(request: web.Request, kind: type[Body], limits: BodyLimits) -> Body:
    """A request's body as ``kind``. Raises InvalidRequest."""
    if not request.body_exists:
        return read_body(kind, b"")
    text = await read_json_body(request, limit_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
    return read_body(kind, text)


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


def entry_view(entry: LedgerEntry) -> dict[str, Any]:
    """A ledger entry."""
    return {"id": entry.id, "at": iso_time(entry.at_ms), "kind": entry.kind, "team": entry.team, **entry.facts}


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


# --- Queries ----------------------------------------------------------------------------------------------------------


def list_query(request: web.Request, *known: str) -> dict[str, str]:
    """The query, of ``known`` parameters. Raises InvalidRequest."""
    for name in request.query:
        if name not in known:
            shown = name[:100]
            raise InvalidRequest(f"Unknown query parameter '{shown}'; there are {', '.join(known)}.", param=shown)
        if len(request.query.getall(name)) > 1:
            raise InvalidRequest(f"'{name}' is given twice.", param=name)
    return dict(request.query)


def _team(query: Mapping[str, str]) -> str | None:
    team = query.get("team")
    if team is not None and not is_team_id(team):
        raise InvalidRequest("'team' should be a team's id.", param="team")
    return team


def list_limit(query: Mapping[str, str]) -> int:
    """How many items a page should hold. Raises InvalidRequest."""
    text = query.get("limit", str(PAGE_DEFAULT))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= PAGE_LIMIT):
        raise InvalidRequest(f"'limit' should be from 1 to {PAGE_LIMIT:,}.", param="limit")
    return int(text[:9])


def list_cursor(query: Mapping[str, str], team_in: Callable[[str], str | None] = team_of) -> str | None:
    """Where the page begins; unless told otherwise, after a key. Raises InvalidRequest."""
    cursor = query.get("cursor")
    if cursor is not None and team_in(cursor) is None:
        raise InvalidRequest("'cursor' should be the next_cursor of an earlier answer.", param="cursor")
    return cursor


def split_entry_id(entry_id: str) -> tuple[str, str]:
    """A ledger entry's team, and its id there. Raises NotFound."""
    team = _ledger_team(entry_id)
    if team is None:
        raise NotFound(f"There is no ledger entry '{entry_id[:100]}'.")
    return team, entry_id.rpartition("_")[2]


def _ledger_team(entry_id: str) -> str | None:
    team, _, stream_id = entry_id.rpartition("_")
    return team if is_team_id(team) and _stream_id.fullmatch(stream_id) else None


def _since(query: Mapping[str, str]) -> int | None:
    text = query.get("since")
    if text is None:
        return None
    try:
        # A plus in a query is a space, and a date's offset often comes with one that nobody escaped.
        return max(0, milliseconds(_moment.validate_python(text.replace(" ", "+"))) or 0)
    except ValidationError:
        raise InvalidRequest("'since' should be a time like 2026-11-23T00:00:00Z.", param="since") from None
