"""Speaking the admin API from the command line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Self

import aiohttp
import click

from proxy.domain.money import Money
from proxy.telemetry.program import PROGRAM
from proxy.web.server.sockets.address import UNIX

DEFAULT_URL = "http://127.0.0.1:8081"
TIMEOUT_S = 30
CLIENT = "proxy.cli.support.admin_client"
"""Where the context of a command keeps its connection."""


class AdminRefusal(click.ClickException):
    """The gateway's own refusal, with its status."""

    def __init__(self, message: str, status: int) -> None:
        """Keep both."""
        super().__init__(message)
        self.status = status


def call_admin(
    method: str, path: str, *, body: Mapping[str, Any] | None = None, query: Mapping[str, str | None] | None = None
) -> Any:
    """What the running gateway answers. Raises click.ClickException with what to do about it.

    All calls of one command to the same gateway share a connection, which ends with the command.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        with AdminClient.from_environment() as client:
            return client.call(method, path, body, query)
    root = context.find_root()
    known, client = root.meta.get(CLIENT), AdminClient.from_environment()
    if known is None or not known.is_like(client):
        known = root.meta[CLIENT] = root.with_resource(client)
    return known.call(method, path, body, query)


def ask_money() -> Money:
    """What a unit is worth to the running gateway. Raises click.ClickException."""
    units = call_admin("GET", "/admin/v1/money")["units_per_usd"]
    return Money(None if units is None else Decimal(units))


class AdminClient:
    """A connection to the admin API; a context."""

    def __init__(self, url: str, token: str) -> None:
        """Nothing is sent yet."""
        self.url = url
        self._token = token
        self._socket_path = url.removeprefix(UNIX) if url.startswith(UNIX) else ""
        self.base_url = "http://localhost" if self._socket_path else url
        self._runner = asyncio.Runner()
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_environment(cls) -> Self:
        """To the gateway that the environment names. Raises click.ClickException."""
        token = os.environ.get("LIGHTMETER_ADMIN_TOKEN", "")
        if not token:
            raise click.ClickException(
                "set LIGHTMETER_ADMIN_TOKEN to the gateway's admin token; the gateway's log says where it is kept "
                "(with the default store: export LIGHTMETER_ADMIN_TOKEN=$(cat data/admin-token))"
            )
        return cls(os.environ.get("LIGHTMETER_ADMIN_URL", "").rstrip("/") or DEFAULT_URL, token)

    def is_like(self, other: AdminClient) -> bool:
        """Whether it asks the same gateway with the same token."""
        return (self.url, self._token) == (other.url, other._token)

    def __enter__(self) -> Self:
        """Use it until the block is left."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the connection."""
        if self._session is not None:
            self._runner.run(self._session.close())
        self._runner.close()

    def open_session(self) -> aiohttp.ClientSession:
        """Connections for who asks from a running event loop, and closes it; addresses begin with ``base_url``."""
        headers = {"Authorization": f"Bearer {self._token}"}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.UnixConnector(self._socket_path) if self._socket_path else None
        return aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str | None] | None
    ) -> Any:
        """The decoded answer. Raises ClickException where there is none, or it is an error."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            return self._runner.run(self._call(method, self.base_url + path, body, given))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise click.ClickException(
                f"no gateway answers at {self.url} ({error}): start it with '{PROGRAM.command('serve')}', "
                "or set LIGHTMETER_ADMIN_URL"
            ) from None

    async def _call(self, method: str, url: str, body: Mapping[str, Any] | None, query: Mapping[str, str]) -> Any:
        if self._session is None:
            self._session = self.open_session()
        async with self._session.request(method, url, json=body, params=query, allow_redirects=False) as response:
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
