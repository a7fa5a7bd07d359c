"""A store whose primary Sentinel knows: ``redis+sentinel://[user:password@]host:port,host:port/service``.

The user and password are the store's own. With ``rediss+sentinel://`` both the sentinels and the store are asked over
TLS, by the same ``ssl_…`` options. Options after ``?``: ``db``; ``sentinel_username`` and ``sentinel_password`` for the
sentinels themselves; and ``sentinel_tls=false`` where these have no TLS.
See https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError as RedisTimeoutError

from proxy.metering.redis.hosts import Place, parse_hosts

SCHEMES = ("redis+sentinel://", "rediss+sentinel://")
DEFAULT_PORT = 26_379
OPTIONS = ("db", "sentinel_username", "sentinel_password")
TLS_OPTION = "sentinel_tls"


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Where the sentinels are, what they call the store, and how both let one in."""

    sentinels: tuple[Place, ...]
    service: str
    store_options: Mapping[str, Any]
    sentinel_options: Mapping[str, Any]
    has_tls: bool = False


def parse_sentinel_url(url: str) -> SentinelAddress:
    """What the address says. Raises ValueError, which says what is wrong without repeating a secret."""
    options = (*OPTIONS, TLS_OPTION) if url.startswith(SCHEMES[1]) else OPTIONS
    hosts = parse_hosts(url, DEFAULT_PORT, options, what="sentinel")
    service = hosts.path.strip("/")
    if not hosts.places or not service or "/" in service:
        raise ValueError(f"should be {SCHEMES[0]}host:port,host:port/service, with the name that the sentinels know")
    given = hosts.options
    login = _login(hosts.username, hosts.password)
    tls = hosts.tls_options() if hosts.has_tls else {}
    store: dict[str, Any] = {**login, **tls}
    if "db" in given:
        if not (given["db"].isascii() and given["db"].isdigit()):
            raise ValueError("should have a number as its option db")
        store["db"] = int(given["db"])
    sentinels: dict[str, Any] = _login(given.get("sentinel_username", ""), given.get("sentinel_password", ""))
    if given.get(TLS_OPTION, "true") not in ("true", "false"):
        raise ValueError(f"should have true or false as its option {TLS_OPTION}")
    if hosts.has_tls and given.get(TLS_OPTION) != "false":
        sentinels |= {"ssl": True, **tls}
    return SentinelAddress(hosts.places, unquote(service), store, sentinels, hosts.has_tls)


class Sentinels(Sentinel):
    """The library's, which raises where a sentinel that stands still takes no part in the end of TLS."""

    async def aclose(self) -> None:
        """Close every connection, within the time that a sentinel has to answer."""
        with suppress(RedisTimeoutError):
            await super().aclose()


def sentinels_of(address: SentinelAddress, timeout_s: float) -> Sentinel:
    """A client of the sentinels; each of them has ``timeout_s`` seconds to answer."""
    # The library's types end here.
    return Sentinels(  # type: ignore[no-untyped-call]
        address.sentinels,
        sentinel_kwargs={
            "protocol": 2,
            "socket_connect_timeout": timeout_s,
            "socket_timeout": timeout_s,
            # There are others to be asked, and whoever waits for a connection has little time.
            "retry": Retry(NoBackoff(), 0),
            **address.sentinel_options,
        },
    )


def _login(username: str, password: str) -> dict[str, str]:
    named = {"username": username, "password": password}
    return {name: text for name, text in named.items() if text}
