"""Speaking the admin wire from the command line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
import click

DEFAULT_URL = "http://127.0.0.1:8081"
TIMEOUT_S = 30


class AdminRefusal(click.ClickException):
    """The gateway's own refusal, with its status."""

    def __init__(self, message: str, status: int) -> None:
        """Keep both."""
        super().__init__(message)
        self.status = status


def call_admin(
    method: str, path: str, *, body: Mapping[str, Any] | None = None, query: Mapping[str, str | None] | None = None
) -> Any:
    """What the running gateway answers. Raises click.ClickException with what to do about it."""
    url = os.environ.get("LIGHTMETER_ADMIN_URL", DEFAULT_URL).rstrip("/")
    token = os.environ.get("LIGHTMETER_ADMIN_TOKEN", "")
    if not token:
        raise click.ClickException(
            "set LIGHTMETER_ADMIN_TOKEN to the gateway's admin token; the gateway's log tells where it is kept "
            "(with the default store: export LIGHTMETER_ADMIN_TOKEN=$(cat data/admin-token))"
        )
    given = {name: value for name, value in (query or {}).items() if value is not None}
    try:
        return asyncio.run(_call(method, url + path, token, body, given))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise click.ClickException(
            f"no gateway answers at {url} ({error}): start it with 'lightmeter serve', or set LIGHTMETER_ADMIN_URL"
        ) from None


async def _call(method: str, url: str, token: str, body: Mapping[str, Any] | None, query: Mapping[str, str]) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
        session.request(method, url, json=body, params=query, allow_redirects=False) as response,
    ):
        try:
            answer = await response.json()
        except (aiohttp.ContentTypeError, ValueError):
            raise click.ClickException(
                f"{url} answers {response.status} and not as a Lightmeter would: check LIGHTMETER_ADMIN_URL"
            ) from None
        if response.status >= 400:  # noqa: PLR2004 - where HTTP's errors begin
            message = answer.get("error", {}).get("message", f"status {response.status}")
            raise AdminRefusal(message, response.status)
        return answer
