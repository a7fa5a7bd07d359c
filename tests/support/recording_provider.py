"""A provider that writes down what it is asked, headers and query included, and answers what a test says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson

from tests.support.scripted_provider import IMAGE


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: Message
    body: bytes

    @property
    def path(self) -> str:
        """Where it went, without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> list[tuple[str, str]]:
        """Its query's parameters."""
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)

    @property
    def form(self) -> dict[str, str | bytes]:
        """The fields of a form; the content of its files as bytes."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        fields: dict[str, str | bytes] = {}
        for part in BytesParser(policy=HTTP).parsebytes(head + self.body).iter_parts():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            name = str(part.get_param("name", header="content-disposition"))
            fields[name] = content if part.get_filename() else content.decode()
        return fields


@dataclass
class Answered:
    """What is answered."""

    status: int = 200
    body: bytes = IMAGE
    headers: Mapping[str, str] | None = None


class RecordingProvider:
    """What runs; ``answer`` may be replaced at any time."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.url = ""
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Answered] = lambda _asked: Answered()

    @property
    def last(self) -> Asked:
        """The last request."""
        return self.asked[-1]


@contextmanager
def recording_provider(tls: ssl.SSLContext | None = None) -> Iterator[RecordingProvider]:
    """One on a free port, for as long as the block lasts; over TLS as ``localhost`` where ``tls`` is given."""
    provider = RecordingProvider()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                raise AssertionError("the gateway sends bodies whose length is known")
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            asked = Asked(self.command, self.path, self.headers, body)
            provider.asked.append(asked)
            answered = provider.answer(asked)
            self.send_response(answered.status)
            for name, value in {"Content-Type": "application/json", **(answered.headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answered.body)))
            self.end_headers()
            self.wfile.write(answered.body)

        def do_GET(self) -> None:
            self.do_POST()

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *_arguments: object) -> None:
            """Tests count for themselves."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, _request: object, _client_address: object) -> None:
            """A gateway that goes away is no news."""

    with Server(("127.0.0.1", 0), Handler) as server:
        provider.url = f"http://127.0.0.1:{server.server_address[1]}"
        if tls is not None:
            provider.url = f"https://localhost:{server.server_address[1]}"
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()
