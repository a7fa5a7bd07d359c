"""What ``server.listen`` and ``admin.listen`` may say: ``HOST:PORT``, or ``unix:/path/of/the/socket``."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

UNIX = "unix:"
LAST_PORT = 65_535
PATH_BYTES_LIMIT = 96
"""Of a Unix socket. The kernel takes 107, and the socket has a longer name until it is ready."""

SHAPE = "should be HOST:PORT, like 127.0.0.1:8080 or [::1]:8080, or unix:/path/of/the/socket"
LOCALHOST = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A ``host`` without brackets and a ``port``, or the ``path`` of a Unix socket, which is empty otherwise."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def of(cls, text: str) -> ListenAddress:
        """The address in ``text``. Raises ValueError, which says what would be right."""
        if text.startswith(UNIX):
            path = text.removeprefix(UNIX)
            if not path.startswith("/") or path.endswith("/") or "\0" in path:
                raise ValueError("should be unix: and a whole path, like unix:/run/lightmeter/public.sock")
            if len(path.encode()) > PATH_BYTES_LIMIT:
                raise ValueError(f"should name a path of at most {PATH_BYTES_LIMIT} bytes")
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        is_bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
        is_port = port.isascii() and port.isdigit() and int(port) <= LAST_PORT
        if not colon or not host or is_bare_ipv6 or not is_port:
            raise ValueError(SHAPE)
        return cls(host.strip("[]"), int(port))

    def overlaps(self, other: ListenAddress) -> bool:
        """Whether the two cannot both be listened on. Names of hosts are not looked up."""
        if self.path or other.path:
            return self.path == other.path
        if self.port != other.port or not self.port:
            return False
        return any(_meet(mine, theirs) for mine in _hosts(self.host) for theirs in _hosts(other.host))


def _hosts(host: str) -> tuple[str, ...]:
    return LOCALHOST if host == "localhost" else (host,)


def _meet(one: str, other: str) -> bool:
    first, second = _parsed(one), _parsed(other)
    if first is None or second is None:
        return one == other
    # An IPv6 socket for all addresses takes IPv4 as well.
    if any(each.version == 6 and each.is_unspecified for each in (first, second)):  # noqa: PLR2004 - IP's version
        return True
    return first.version == second.version and (first == second or first.is_unspecified or second.is_unspecified)


def _parsed(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
