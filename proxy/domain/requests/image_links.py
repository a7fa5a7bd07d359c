"""Addresses of images that a provider is to fetch: only public ones, over TLS.

A provider in the operator's own network could otherwise be made to ask what only it can reach, as a cloud's metadata at
169.254.169.254. What a name stands for is looked up by the provider, which has to guard itself against names that lead
inwards; what a name or a number says itself is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from proxy.domain.errors import InvalidRequest

ADDRESS_LENGTH_LIMIT = 8_192
"""Of one that is fetched; a data: address has no limit of its own."""

INNER_NAMES = ("localhost", "local", "internal", "localdomain", "home.arpa")
"""Names, and all below them, that no public host has."""

NAT64 = IPv6Network("64:ff9b::/96")
"""An IPv4 address is in the last 32 bits (RFC 6052)."""

_plain = re.compile(r"[!-\[\]-~]+")
_host = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_ends_in_a_number = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")


def check_link(address: str, name: str, param: str) -> bool:
    """Whether a provider would have to fetch ``address``, which is called ``name``; False for a ``data:`` address.

    Raises InvalidRequest about ``param`` where it is neither, or leads to no public host.
    """
    if address[:5].lower() == "data:":
        return False
    if address[:8].lower() != "https://":
        raise InvalidRequest(f"'{name}' should begin with https:// or with data:image/.", param=param)
    if len(address) > ADDRESS_LENGTH_LIMIT:
        raise InvalidRequest(f"'{name}' should have at most {ADDRESS_LENGTH_LIMIT:,} characters.", param=param)
    if not _is_public(address):
        raise InvalidRequest(
            f"'{name}' should be the address of a public host, in ASCII and without a user's name.", param=param
        )
    return True


def _is_public(address: str) -> bool:
    # Parsers do not agree on a backslash, on blanks, or on characters beyond ASCII.
    if not _plain.fullmatch(address):
        return False
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc:
        return False
    host = host.removesuffix(".")
    try:
        return parts.netloc.startswith("[") == (":" in host) and _is_global(host)
    except ValueError:
        # 127.1 and 2130706433 are addresses too to many a resolver (WHATWG URL, section 3.5).
        is_name = _host.fullmatch(host) is not None and _ends_in_a_number.fullmatch(host) is None
    return is_name and "." in host and not any(f".{host}".endswith(f".{inner}") for inner in INNER_NAMES)


def _is_global(host: str) -> bool:
    """Raises ValueError where it is no number."""
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        inner = address.sixtofour or (IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None)
        address = inner or address
    return address.is_global and not address.is_multicast


def links_of(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether what a chat says holds an address that its provider would have to fetch.

    Raises InvalidRequest where one is not as ``check_link`` would have it.
    """
    # Each is checked, also behind one that is good.
    return sum(check_link(address, place, "messages") for place, address in _addresses(messages)) > 0


def _addresses(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Whatever stands in a part under a name like ``image_url``: a text, or an object with ``url``."""
    for number, message in enumerate(messages):
        for name, parts in message.items():
            if type(parts) is not list:
                continue
            for index, part in enumerate(parts):
                for kind, value in part.items() if type(part) is dict else ():
                    if not kind.endswith("_url"):
                        continue
                    url = value.get("url") if type(value) is dict else value
                    if type(url) is str:
                        yield f"messages[{number}].{name}[{index}].{kind}", url
