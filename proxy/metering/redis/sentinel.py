"""A store whose primary Sentinel knows: ``redis+sentinel://[user:password@]host:port,host:port/service``.

The user and password are the store's own. Options after ``?``: ``db``, and ``sentinel_username`` and
``sentinel_password`` for the sentinels themselves. See https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio.sentinel import Sentinel

SCHEME = "redis+sentinel://"
DEFAULT_PORT = 26_379
LAST_PORT = 65_535
OPTIONS = frozenset({"db", "sentinel_username", "sentinel_password"})


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Where the sentinels are, what they call the store, and how both let one in."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    store_options: Mapping[str, Any]
    sentinel_options: Mapping[str, Any]


def parse_sentinel_url(url: str) -> SentinelAddress:
    """What the address says. Raises ValueError, which says what is wrong without repeating a secret."""
    parts = urlsplit(url)
    user_info, _, hosts = parts.netloc.rpartition("@")
    service = parts.path.strip("/")
    if not hosts or not service or "/" in service:
        raise ValueError(f"should be {SCHEME}host:port,host:port/service, with the name that the sentinels know")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not OPTIONS.issuperset(given):
        raise ValueError(f"may have only the options {', '.join(sorted(OPTIONS))}")
    username, _, password = user_info.partition(":")
    store: dict[str, Any] = _login(unquote(username), unquote(password))
    if "db" in given:
        if not (given["db"].isascii() and given["db"].isdigit()):
            raise ValueError("should have a number as its option db")
        store["db"] = int(given["db"])
    sentinels = _login(given.get("sentinel_username", ""), given.get("sentinel_password", ""))
    return SentinelAddress(tuple(_place(host) for host in hosts.split(",")), unquote(service), store, sentinels)


def sentinels_of(address: SentinelAddress, timeout_s: float) -> Sentinel:
    """A client of the sentinels; each of them has ``timeout_s`` seconds to answer."""
    # The library's types end here.
    return Sentinel(  # type: ignore[no-untyped-call]
        address.sentinels,
        sentinel_kwargs={
            "protocol": 2,
            "socket_connect_timeout": timeout_s,
            "socket_timeout": timeout_s,
            **address.sentinel_options,
        },
    )


def _login(username: str, password: str) -> dict[str, Any]:
    named = {"username": username, "password": password}
    return {name: text for name, text in named.items() if text}


def _place(host: str) -> tuple[str, int]:
    name, colon, port = host.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = host, str(DEFAULT_PORT)
    if not name or not (port.isascii() and port.isdigit() and 0 < int(port) <= LAST_PORT):
        raise ValueError("should name each sentinel as host:port")
    return name.strip("[]"), int(port)
