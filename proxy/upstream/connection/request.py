"""The head of a request, made once for all that differ in their length only, and where it is sent. No I/O."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from yarl import URL


class Origin(NamedTuple):
    """Whom a connection leads to."""

    host: str
    port: int
    is_tls: bool

    @classmethod
    def of(cls, url: URL) -> Origin:
        """Of an absolute address. Raises ValueError where it has no host, or is not HTTP."""
        host, port = url.raw_host, url.port
        if host is None or port is None or url.scheme not in ("http", "https"):
            raise ValueError("an address of HTTP has a host")
        return cls(host.rstrip("."), port, url.scheme == "https")


class HttpProxy:
    """An HTTP proxy on the way: a tunnel for what is sent by TLS, and asked itself for the rest."""

    def __init__(self, address: str) -> None:
        """``address`` is like ``http://user:password@proxy.example:3128``."""
        url = URL(address)
        self.origin = Origin.of(url.with_scheme("http"))
        self.headers: dict[str, str] = {}
        if url.user is not None:
            known = f"{url.user}:{url.password or ''}".encode()
            # RFC 7617 section 2.
            self.headers["Proxy-Authorization"] = f"Basic {b64encode(known).decode()}"

    def tunnel_head(self, origin: Origin) -> bytes:
        """What asks for a tunnel to ``origin`` (RFC 9110 section 9.3.6)."""
        place = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
        return _write(f"CONNECT {place} HTTP/1.1", {"Host": place, **self.headers}) + b"\r\n"


@dataclass(frozen=True, slots=True)
class Route:
    """Where requests to one address go, and the head of each of them up to its length."""

    origin: Origin
    head: bytes

    def text(self, body: bytes, more: bytes = b"") -> bytes:
        """All of a request with a small body, and ``more`` headers, each with its line's end."""
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self.head, more, len(body), body)

    def head_for(self, size_bytes: int, more: bytes = b"") -> bytes:
        """The head of a request with a body of ``size_bytes``, and ``more`` headers, each with its line's end."""
        return b"%b%bContent-Length: %d\r\n\r\n" % (self.head, more, size_bytes)


def make_route(method: str, url: URL, headers: Mapping[str, str], proxy: HttpProxy | None = None) -> Route:
    """The route to ``url``. Raises ValueError for what cannot be in a header."""
    origin = Origin.of(url)
    target, more = url.raw_path_qs, headers
    if proxy is not None and not origin.is_tls:
        # RFC 9112 section 3.2.2.
        target = str(url.with_user(None).with_fragment(None))
        more = {**headers, **proxy.headers}
    host = {"Host": url.host_port_subcomponent or origin.host}
    return Route(origin, _write(f"{method} {target} HTTP/1.1", {**host, **more}))


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they are sent. Raises ValueError for what cannot be in one."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line or "\0" in line for line in lines):
        raise ValueError("a header holds a line's end")
    return "".join(f"{line}\r\n" for line in lines).encode()


def _write(line: str, headers: Mapping[str, str]) -> bytes:
    if "\r" in line or "\n" in line:
        raise ValueError("an address holds a line's end")
    return f"{line}\r\n".encode() + header_lines(headers)
