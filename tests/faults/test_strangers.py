"""Whoever has no key: many connections, framing without data, answers that nobody reads. Others notice nothing."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.gateways import (
    ADMIN_TOKEN,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    running_gateway,
)
from tests.support.processes import wait_for
from tests.support.raw_http import connect

WRITE_TIMEOUT_S = 1.0
STRANGERS = 20


@pytest.fixture(scope="module")
def gateway(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that lets go early of who does not read."""
    folder: Path = tmp_path_factory.mktemp("strangers")
    server, accounting = {"write_timeout": WRITE_TIMEOUT_S}, {"idempotency_answer_bytes": 2**20}
    toml = configuration(f"embedded:{folder}/data", provider.url, server=server, accounting=accounting)
    with running_gateway(folder, toml) as running:
        yield running


class Looks:
    """Asks for /healthz again and again, each time on a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.took_s: list[float] = []

    def __enter__(self) -> Looks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            assert ask("GET", self._url + "/healthz").status == 200
            self.took_s.append(time.monotonic() - began)


def head(line: str, secret: str, *headers: str) -> bytes:
    lines = (line, "Host: lightmeter", f"Authorization: Bearer {secret}", "Content-Type: application/json", *headers)
    return "\r\n".join([*lines, "", ""]).encode()


def flood(url: str, start: bytes, body: bytes) -> tuple[float, bytes]:
    """Send it as fast as it is taken; the seconds until the end of the connection, and what came back."""
    began = time.monotonic()
    received = b""
    with connect(url) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(start + body)
        with contextlib.suppress(ConnectionError):
            received = read_all(connection)
    return time.monotonic() - began, received


def all_at_once(act: Callable[[], tuple[float, bytes]], count: int) -> list[tuple[float, bytes]]:
    ended: list[tuple[float, bytes]] = []
    threads = [threading.Thread(target=lambda: ended.append(act())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


FLOODS = {
    "no key": ("POST /v1/images/generations HTTP/1.1", "", False),
    "a good key": ("POST /v1/images/generations HTTP/1.1", "good", False),
    "an unknown route": ("POST /nowhere HTTP/1.1", "", False),
    "a method that is not allowed": ("PUT /v1/images/generations HTTP/1.1", "", False),
    "the admin listener": ("POST /admin/v1/keys HTTP/1.1", "", True),
    "an admin": ("POST /admin/v1/keys HTTP/1.1", ADMIN_TOKEN, True),
    "metrics": ("GET /metrics HTTP/1.1", "", True),
}


@pytest.mark.parametrize(("line", "secret", "admin"), FLOODS.values(), ids=FLOODS)
def test_chunks_of_one_byte_stop_nobody(gateway: RunningGateway, line: str, secret: str, admin: bool) -> None:
    secret = gateway.make_key() if secret == "good" else secret
    url = gateway.admin_url if admin else gateway.url
    start = head(line, secret, "Transfer-Encoding: chunked")
    before_s = processor_s(gateway)
    with Looks(gateway.admin_url) as looks:
        ended = all_at_once(lambda: flood(url, start, b"1\r\na\r\n" * 50_000), STRANGERS)
    assert processor_s(gateway) - before_s < 0.4
    assert max(looks.took_s) < 0.3
    # Each was answered, where its answer outran the reset, and closed without the second that others get.
    assert len(ended) == STRANGERS
    assert all(took_s < 0.8 for took_s, _ in ended)
    assert {received[9:12] for _, received in ended} <= {b"", b"200", b"400", b"401", b"404", b"405"}


def processor_s(gateway: RunningGateway) -> float:
    """What the gateway has used of its processor until now, in seconds."""
    times = psutil.Process(gateway.server.process.pid).cpu_times()
    return times.user + times.system


# --- Answers that nobody reads ----------------------------------------------------------------------------------------


def connections(gateway: RunningGateway, listener: str) -> int:
    found = re.search(rf'lightmeter_connections{{listener="{listener}"}} (\d+)', gateway.metrics())
    assert found is not None
    return int(found[1])


def closed(gateway: RunningGateway, listener: str, reason: str) -> int:
    name = "lightmeter_connections_closed_total"
    found = re.search(rf'{name}{{listener="{listener}",reason="{reason}"}} (\d+)', gateway.metrics())
    return int(found[1]) if found else 0


@pytest.mark.parametrize("listener", ["public", "admin"])
def test_a_plain_answer_that_nobody_reads_has_an_end(gateway: RunningGateway, listener: str) -> None:
    url, request = gateway.admin_url, head("GET /openapi.json HTTP/1.1", "")
    if listener == "public":
        url, request = gateway.url, replayed(gateway)
    before = closed(gateway, listener, "unread")
    with connect(url, receive_bytes=4_096) as client:
        # More in all than the kernel keeps for a client.
        client.sendall(request * 30)
        wait_for(lambda: closed(gateway, listener, "unread") > before, "the deadline", 10 * WRITE_TIMEOUT_S)
        # What asks is a connection of its own.
        expected = 1 if listener == "admin" else 0
        wait_for(lambda: connections(gateway, listener) == expected, "the end of the connection")
        with pytest.raises(ConnectionResetError):
            read_all(client)


def replayed(gateway: RunningGateway) -> bytes:
    """A request that has been made before, and whose large answer was kept."""
    key = gateway.make_key()
    prompt = "[sample image_bytes=500000] a cube"
    body = json.dumps({"model": "acme/image-1", "prompt": prompt, "response_format": "b64_json"}).encode()
    headers = ("Idempotency-Key: unread", f"Content-Length: {len(body)}")
    request = head("POST /v1/images/generations HTTP/1.1", key, *headers) + body
    with connect(gateway.url) as first:
        first.sendall(request)
        assert first.recv(15) == b"HTTP/1.1 200 OK"
        wait_for(lambda: len(gateway.ledger(key)) == 1, "its entry")
    return request


def read_all(connection: socket.socket) -> bytes:
    """What comes until the end."""
    received = b""
    while part := connection.recv(65_536):
        received += part
    return received


# --- Connections without end ------------------------------------------------------------------------------------------


@pytest.fixture
def narrow(provider: SampleProvider, tmp_path: Path) -> Iterator[RunningGateway]:
    """A gateway that may open 256 descriptors and no more."""
    toml = configuration(f"embedded:{tmp_path}/data", provider.url)
    shell = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    with running_gateway(tmp_path, toml, prefix=shell) as running:
        yield running


def test_idle_connections_without_end_keep_nobody_out(narrow: RunningGateway) -> None:
    key = narrow.make_key()
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(narrow.url)) for _ in range(400)]
        idle += [stack.enter_context(connect(narrow.admin_url)) for _ in range(100)]
        assert ask("GET", narrow.admin_url + "/healthz").status == 200
        assert ask("GET", narrow.admin_url + "/readyz").status == 200
        for _ in range(5):
            assert narrow.generate(key).status == 200
        assert closed(narrow, "public", "evicted") >= 400 - 256
        assert psutil.Process(narrow.server.process.pid).num_fds() < 200
        told = [line for line in narrow.server.output.splitlines() if "listener has all of its" in line]
        assert len(told) == 2
        assert len(idle) == 500
    narrow.check_books(key)


def test_a_connection_that_finds_all_others_at_work_is_told_so(provider: SampleProvider, tmp_path: Path) -> None:
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, server={"max_connections": 2})
    with running_gateway(tmp_path, toml) as gateway:
        key = gateway.make_key()
        slow = json.dumps({"model": "acme/image-1", "prompt": "[sample delay_ms=1500] a cube"}).encode()
        request = head("POST /v1/images/generations HTTP/1.1", key, f"Content-Length: {len(slow)}") + slow
        with connect(gateway.url) as one, connect(gateway.url) as two:
            one.sendall(request)
            two.sendall(request)
            made = 'lightmeter_in_flight_requests{model="acme/image-1"} 2'
            wait_for(lambda: made in gateway.metrics(), "both requests")
            with connect(gateway.url) as third:
                told = read_all(third)
            assert told.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nx-request-id: req_" in told
            assert b"\r\nRetry-After: 1\r\n" in told
            assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_many_connections"
            for busy in (one, two):
                assert busy.recv(15) == b"HTTP/1.1 200 OK"
        assert closed(gateway, "public", "refused") == 1
        gateway.check_books(key)
