"""The gateway whose ledger is shipped, by its admin API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import aiohttp
import orjson

from proxy.shipping.batch import Entry
from proxy.shipping.errors import ShippingError, Unavailable

ENTRIES_A_PAGE = 1_000
REPORT_TEAMS = 1_000
TRY_AGAIN = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT})


@dataclass(frozen=True, slots=True)
class Head:
    """Where a team's ledger ends, was trimmed to, and is shipped to as the gateway knows; ``read_ms`` by its clock."""

    team: str
    last: str | None
    trimmed: str | None
    shipped: str | None
    read_ms: int


@dataclass(frozen=True, slots=True)
class HeadPage:
    """Heads of some teams, and where the next ones are."""

    heads: list[Head]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Entries of one team; ``more`` where others follow."""

    entries: list[Entry]
    more: bool


class Source:
    """Raises Unavailable where the gateway is away, and ShippingError where it refuses."""

    def __init__(self, session: aiohttp.ClientSession, url: str, shipper: str) -> None:
        """Ask the admin API below ``url`` in ``session``, in the name of ``shipper``."""
        self._session = session
        self._url = url
        self._shipper = shipper

    async def heads(self, cursor: str | None) -> HeadPage:
        """Heads of the teams after ``cursor``."""
        query = {"shipper": self._shipper, "limit": str(ENTRIES_A_PAGE), **({"cursor": cursor} if cursor else {})}
        answer = await self._ask("GET", "/admin/v1/ledger/heads", query)
        heads = [
            Head(each["team"], each["last"], each["trimmed"], each["shipped"], _milliseconds(each["read_at"]))
            for each in answer["data"]
        ]
        return HeadPage(heads, answer["next_cursor"])

    async def entries(self, team: str, after: str | None) -> EntryPage:
        """The entries of a team that follow ``after``, oldest first."""
        query = {"team": team, "limit": str(ENTRIES_A_PAGE), **({"cursor": after} if after else {})}
        answer = await self._ask("GET", "/admin/v1/ledger", query)
        return EntryPage(answer["data"], answer["next_cursor"] is not None)

    async def units_per_usd(self) -> Decimal | None:
        """What a US dollar is in quota units; None where that is not set."""
        units = (await self._ask("GET", "/admin/v1/money", {}))["units_per_usd"]
        return None if units is None else Decimal(units)

    async def report(self, entries: Iterable[str], caught_up_ms: int | None = None) -> None:
        """Tell the last entry of each team that was shipped, and up to when nothing is missing."""
        left = list(entries)
        while len(left) > REPORT_TEAMS:
            await self._report(left[:REPORT_TEAMS], None)
            left = left[REPORT_TEAMS:]
        await self._report(left, caught_up_ms)

    async def _report(self, entries: list[str], caught_up_ms: int | None) -> None:
        at = None if caught_up_ms is None else datetime.fromtimestamp(caught_up_ms / 1000, UTC).isoformat()
        body = {"shipper": self._shipper, "entries": entries, "caught_up_to": at}
        await self._ask("POST", "/admin/v1/ledger/shipped", {}, body)

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None = None
    ) -> Any:
        url = self._url + path
        try:
            async with self._session.request(method, url, params=query, json=body, allow_redirects=False) as response:
                content, status = await response.read(), response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"no gateway answers at {self._url} ({str(error) or 'too late'})") from None
        try:
            answer = orjson.loads(content)
        except orjson.JSONDecodeError:
            answer = None
        if status == HTTPStatus.OK and isinstance(answer, dict):
            return answer
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in TRY_AGAIN:
            raise Unavailable(f"the gateway at {self._url} answers {status} ({_message(answer)})")
        raise ShippingError(f"the gateway refuses {method} {url} with {status}: {_message(answer)}")


def _message(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return str(message) if message else "not as a Lightmeter would: check LIGHTMETER_ADMIN_URL"


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
