"""Hosts that the gateway may be sent to by what a provider answers, which is not to be trusted. Pure.

An entry is ``host``, ``host:port`` or ``*.domain``, each over TLS; or ``http://`` and a loopback host, for what runs on
the same machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from yarl import URL

ADDRESS_LENGTH_LIMIT = 8_192
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HTTPS_PORT, _HTTP_PORT = 443, 80
_LAST_PORT = 65_535

# Parsers do not agree on blanks, on a backslash, or on characters beyond ASCII.
_plain = re.compile(r"[!-\[\]-~]+")
_entry = re.compile(r"(http://)?((?:\*\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")


def check_host(entry: str) -> str:
    """``entry`` as it is compared. Raises ValueError, which says what it should be."""
    found = _entry.fullmatch(entry.lower())
    if found is None or int(found[3] or 1) > _LAST_PORT or (found[2].startswith("*.") and "." not in found[2][2:]):
        raise ValueError("should be a host like delivery.example or *.delivery.example, with a port or without")
    if found[1] and found[2].strip("[]") not in LOOPBACK:
        raise ValueError("should be without http://, which is for localhost alone: other hosts are asked over TLS")
    return entry.lower()


class AllowedHosts:
    """A list of hosts, and the provider's own host as its base URL has it, where that is allowed as well."""

    def __init__(self, entries: Iterable[str], own: URL | None = None) -> None:
        """``entries`` are as ``check_host`` takes them."""
        self._own = None if own is None else (own.scheme, own.host, own.port)
        self._exact: set[tuple[str, str, int]] = set()
        self._below: list[tuple[str, int]] = []
        for entry in entries:
            found = _entry.fullmatch(check_host(entry))
            if found is None:
                continue
            scheme = "http" if found[1] else "https"
            port = int(found[3]) if found[3] else (_HTTP_PORT if found[1] else _HTTPS_PORT)
            if found[2].startswith("*."):
                self._below.append((found[2][1:], port))
            else:
                self._exact.add((scheme, found[2].strip("[]"), port))

    def read(self, address: str) -> URL | None:
        """``address``, not written anew, where it leads to one of the hosts; else None.

        A signed address holds only for its own spelling.
        """
        if len(address) > ADDRESS_LENGTH_LIMIT or not _plain.fullmatch(address):
            return None
        try:
            url = URL(address, encoded=True)
            host, port = (url.host or "").lower().removesuffix("."), url.port
        except ValueError:
            return None
        if url.user is not None or url.password is not None or not host or port is None:
            return None
        place = (url.scheme, host, port)
        is_below = url.scheme == "https" and any(host.endswith(end) and port == wanted for end, wanted in self._below)
        return url if is_below or place in self._exact or place == self._own else None
