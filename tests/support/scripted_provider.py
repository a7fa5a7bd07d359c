"""A provider that does what a test says, request by request, and holds answers back until it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOLD_LIMIT_S = 30.0
IMAGE = json.dumps({"created": 1, "data": [{"url": "http://127.0.0.1/1.png"}]}).encode()


@dataclass(frozen=True)
class Reply:
    """One answer. ``held`` is waited for before its headers; a ``broken`` one is no answer but the connection's end.

    ``raw`` is all of an answer, its head included, after which the connection ends.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    held: threading.Event | None = None
    broken: bool = False
    raw: bytes = b""

    @property
    def content(self) -> bytes:
        """The body; without one of its own, an image or an error."""
        if self.body:
            return self.body
        return IMAGE if self.status == 200 else json.dumps({"error": {"message": "no"}}).encode()

    @property
    def length(self) -> int:
        """What its Content-Length says."""
        return len(self.content)


Script = Callable[[int], Reply]


class ScriptedProvider:
    """What runs: ``script`` is asked for the reply to each request, counted from 0, and may be replaced at any time."""

    def __init__(self, script: Script) -> None:
        """Nothing has come yet."""
        self.url = ""
        self.script = script
        self.received = 0
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    @contextmanager
    def _at_work(self) -> Iterator[Reply]:
        with self._lock:
            number, self.received = self.received, self.received + 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            reply = self.script(number)
            if reply.held is not None:
                reply.held.wait(HOLD_LIMIT_S)
            yield reply
        finally:
            with self._lock:
                self.at_once -= 1

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Read one request, and answer it by the script."""
        request.rfile.read(int(request.headers["Content-Length"]))
        with self._at_work() as reply:
            if reply.broken:
                request.close_connection = True
                return
            if reply.raw:
                request.close_connection = True
                request.wfile.write(reply.raw)
                return
            request.send_response(reply.status)
            headers: dict[str, Any] = {"Content-Type": "application/json", **reply.headers}
            for name, value in {**headers, "Content-Length": reply.length}.items():
                if value != "":
                    request.send_header(name, str(value))
            request.end_headers()
        request.wfile.write(reply.content)
        if reply.length != len(reply.content):
            request.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1_024

    def handle_error(self, _request: object, _client_address: object) -> None:
        """A gateway that goes away is no news."""


@contextmanager
def scripted_provider(script: Script) -> Iterator[ScriptedProvider]:
    """One on a free port, for as long as the block lasts."""
    provider = ScriptedProvider(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # The body is a write of its own, and would wait for the acknowledgement of the headers.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            provider.handle(self)

        def log_message(self, *_arguments: object) -> None:
            """Tests count for themselves."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        provider.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()
