"""Addresses that name several hosts, as those of Sentinel and Cluster do: ``scheme://[user:password@]host:port,host/…?…``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from redis.asyncio.connection import parse_url

LAST_PORT = 65_535
TLS_OPTIONS = (
    "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_certfile", "ssl_ciphers", "ssl_keyfile", "ssl_password",
    "ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version",
)  # fmt: skip
"""The client library's, which ``rediss://`` takes as well."""

Place = tuple[str, int]
"""Host and port."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """What such an address says; ``has_tls`` where the scheme begins with ``rediss``."""

    scheme: str
    places: tuple[Place, ...]
    path: str
    username: str
    password: str
    options: Mapping[str, str]

    @property
    def has_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.scheme.startswith("rediss")

    def url_of(self, place: Place) -> str:
        """The address of one server, with the same user, password and TLS."""
        host, port = place
        name = f"[{host}]" if ":" in host else host
        login = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@" if self.password else ""
        tls = {name: value for name, value in self.options.items() if name in TLS_OPTIONS}
        scheme = "rediss" if self.has_tls else "redis"
        return f"{scheme}://{login}{name}:{port}{'?' if tls else ''}{urlencode(tls)}"

    def tls_options(self) -> dict[str, Any]:
        """The options of TLS as the client library's connections take them."""
        options = dict[str, Any](parse_url(self.url_of(self.places[0])))
        return {name: value for name, value in options.items() if name in TLS_OPTIONS}


def parse_hosts(url: str, default_port: int, options: Collection[str], *, what: str) -> Hosts:
    """What the address says; ``what`` names a host of it. Raises ValueError, which repeats no secret."""
    parts = urlsplit(url)
    user_info, _, hosts = parts.netloc.rpartition("@")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = {*options, *(TLS_OPTIONS if parts.scheme.startswith("rediss") else ())}
    if not known.issuperset(given):
        raise ValueError(f"may have only the options {', '.join(sorted(known))}" if known else "may have no options")
    username, _, password = user_info.partition(":")
    places = tuple(_place(host, default_port, what) for host in hosts.split(",")) if hosts else ()
    return Hosts(parts.scheme, places, parts.path, unquote(username), unquote(password), given)


def _place(host: str, default_port: int, what: str) -> Place:
    name, colon, port = host.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = host, str(default_port)
    if not name or " " in name or not (port.isascii() and port.isdigit() and 0 < int(port) <= LAST_PORT):
        raise ValueError(f"should name each {what} as host:port")
    return name.strip("[]"), int(port)
