"""HTTP as bytes on a socket, for what no client library would send."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.support.gateways import Answer


@dataclass(frozen=True)
class Exchange:
    """All that came back until the server closed, or was silent; and how long that took, in seconds."""

    received: bytes
    closed: bool
    took_s: float

    @property
    def answers(self) -> list[Answer]:
        """The answers in it; each has a Content-Length or no body."""
        found: list[Answer] = []
        rest = self.received
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")
            version, code = status.split()[:2]
            assert version in ("HTTP/1.0", "HTTP/1.1"), status
            headers = dict(line.split(": ", 1) for line in lines)
            length = int(headers.get("Content-Length", "0"))
            found.append(Answer(int(code), headers, rest[:length]))
            rest = rest[length:]
        return found


def connect(url: str, *, receive_bytes: int | None = None) -> socket.socket:
    """A connection to the server at ``url``, with a receive buffer of ``receive_bytes``."""
    address = urlsplit(url)
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.settimeout(20)
    if receive_bytes is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    made.connect((address.hostname or "", address.port or 0))
    return made


def exchange(url: str, *pieces: bytes, silence_s: float = 0.4, half_close: bool = False) -> Exchange:
    """Send ``pieces``, each in a segment of its own, and read until the server closes or says nothing more."""
    began = time.monotonic()
    received = b""
    with connect(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place, piece in enumerate(pieces):
            if place:
                time.sleep(0.05)
            connection.sendall(piece)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(silence_s)
        try:
            while part := connection.recv(65_536):
                received += part
        except TimeoutError:
            return Exchange(received, closed=False, took_s=time.monotonic() - began)
        except ConnectionResetError:
            pass
    return Exchange(received, closed=True, took_s=time.monotonic() - began)
