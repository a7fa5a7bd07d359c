"""An HTTPS server that takes batches of CloudEvents, and fails in the ways that a test asks for."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson

from tests.support.certificates import certify


@dataclass
class Receiver:
    """Events that came, and what the next requests get.

    ``faults`` has one word for each request to come: ``ok``, a status, ``503 after N`` with Retry-After, ``lost`` for
    one that is taken and whose answer never leaves, ``slow`` for one that is taken and answered too late.
    """

    url: str = ""
    certificate: Path = Path()
    faults: list[str] = field(default_factory=list)
    body_limit: int = 10**9
    slow_s: float = 1.5
    events: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ids(self) -> list[str]:
        """Of all events that were taken, in their order, and again where one came again."""
        return [event["id"] for event in self.events]


@contextmanager
def event_receiver(folder: Path) -> Iterator[Receiver]:
    """A receiver, and its certificate for SSL_CERT_FILE."""
    certify(folder, "receiver", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    receiver = Receiver(certificate=folder / "receiver.crt")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """One batch."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with receiver.lock:
                fault = receiver.faults.pop(0) if receiver.faults else "ok"
                receiver.requests.append((dict(self.headers), body))
                status, _, after = fault.partition(" after ")
                if len(body) > receiver.body_limit:
                    status = "413"
                if status in {"ok", "lost", "slow"}:
                    receiver.events += orjson.loads(body)
            if status == "lost":
                self.close_connection = True
                return
            if status == "slow":
                time.sleep(receiver.slow_s)
            answer = b"" if status in {"ok", "slow"} else b"not now,\r\n sorry" * 1_000
            self.send_response(202 if not answer else int(status))
            self.send_header("Content-Length", str(len(answer)))
            if after:
                self.send_header("Retry-After", after)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(answer)

        def log_message(self, *_message: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "receiver.crt", folder / "receiver.key")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_error: None  # type: ignore[method-assign]
    receiver.url = f"https://localhost:{server.server_port}/events"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
