"""Which client a request came from: also where proxies stand between, by ``X-Forwarded-For`` as far as it is true."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

FORWARDED_FOR = "X-Forwarded-For"
HOPS_LIMIT = 32
"""Addresses that are looked at, from the end; whoever writes more is not answered for with more work."""

ADDRESSES_KEPT = 1_024
UNIX_CLIENT = "unix"
"""What whoever calls through a Unix socket is called, where nobody is reported to stand behind it."""

MAPPED = "::ffff:"
"""How an IPv6 socket that takes IPv4 as well tells of it (RFC 4291 section 2.5.5.2)."""


class ClientAddresses:
    """Tells clients' addresses, where proxies at some networks are trusted to report whom they speak for."""

    def __init__(self, trusted_proxies: Iterable[str] = (), *, through_unix: bool = False) -> None:
        """``trusted_proxies`` are addresses or networks, as ``10.0.0.0/8``, or ``unix``.

        With ``through_unix`` all requests come through a Unix socket.
        """
        self._peer = UNIX_CLIENT if through_unix else None
        trusted = frozenset(trusted_proxies)
        self._trusts_unix = UNIX_CLIENT in trusted
        self._trusted: tuple[IPv4Network | IPv6Network, ...] = tuple(map(ip_network, trusted - {UNIX_CLIENT}))
        self._trusts_any = bool(trusted)
        self._is_trusted = lru_cache(ADDRESSES_KEPT)(self._look_up)

    def of(self, request: web.Request) -> str:
        """The address of the client, empty where the transport has none, or ``unix``.

        Each proxy appends whom it was called by. So the header is read from its end, for as long as those who wrote it
        are trusted; whatever stands before that may have been made up by the client.
        """
        nearest = self._peer or request.remote or ""
        if nearest.startswith(MAPPED):
            nearest = nearest.removeprefix(MAPPED)
        if not self._trusts_any or not self._is_trusted(nearest):
            return nearest
        return self._first_untrusted(nearest, request.headers.getall(FORWARDED_FOR, ()))

    def _first_untrusted(self, nearest: str, headers: Sequence[str]) -> str:
        hops = ",".join(headers).rsplit(",", HOPS_LIMIT)[-HOPS_LIMIT:]
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                break
            nearest = str(address)
            if not self._is_trusted(nearest):
                break
        return nearest

    def _look_up(self, text: str) -> bool:
        if text == UNIX_CLIENT:
            return self._trusts_unix
        address = _address(text)
        return address is not None and any(address in network for network in self._trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it: alone, with a port, in brackets; None for ``unknown`` and what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


DIRECT = ClientAddresses()
"""No proxy stands between."""
