"""A sample provider on a real socket, for each test that wants one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from proxy.sample_provider.app import build_app
from proxy.sample_provider.behaviour import Behaviour

Client = TestClient[web.Request, web.Application]
Start = Callable[..., Awaitable[Client]]


@pytest.fixture
def start(aiohttp_client: AiohttpClient) -> Start:
    """Start a sample provider with these fields of its behaviour; the client sends a key."""

    async def start_one(**fields: Any) -> Client:
        return await aiohttp_client(build_app(Behaviour(**fields)), headers={"Authorization": "Bearer sk-anything"})

    return start_one
