"""The overview as events: a stream does not outlive the session that began it for long."""

from __future__ import annotations

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

from proxy.domain.errors import StoreUnavailable
from proxy.metering.accounts.figures import FigureReader, Figures
from proxy.telemetry.observation import request_ids
from proxy.web.console import overview
from proxy.web.console.overview import READS, OverviewRoutes
from proxy.web.middleware.observe import number
from proxy.web.server.routes import add_routes


class StoreAway(FigureReader):
    """Figures of a store that does not answer."""

    def __init__(self) -> None:
        pass

    async def minutes(self, count: int) -> list[tuple[int, Figures]]:
        raise StoreUnavailable


async def vitals() -> tuple[str, bytes]:
    return "ready", b""


async def test_a_stream_ends_after_a_while_and_is_asked_for_again(
    aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "EVERY_S", 0.02)
    monkeypatch.setattr(overview, "STREAM_S", 0.05)
    app = web.Application(middlewares=[number(request_ids())])
    add_routes(app, OverviewRoutes(StoreAway(), vitals).routes())
    client = await aiohttp_client(app)
    for _ in range(2):
        async with client.get(f"{READS}/events") as response:
            text = await response.text()
        assert text.startswith("data: {")
        assert text.endswith(f"\nretry: {overview.RETRY_MS}\n\n")
        assert 1 <= text.count("data: ") <= 4
