"""What a careless or hostile client sends on the socket itself."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.gateways import (
    Answer,
    RunningGateway,
    SampleProvider,
    configuration,
    running_gateway,
)

BODY = json.dumps({"model": "acme/image-1", "prompt": "a cube"}).encode()


def connect(gateway: RunningGateway) -> socket.socket:
    address = urlsplit(gateway.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=10)


def exchange(gateway: RunningGateway, request: bytes) -> Answer:
    """Send bytes as they are; read until the server closes."""
    with connect(gateway) as connection:
        connection.sendall(request)
        received = b""
        while part := connection.recv(65_536):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return Answer(int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body)


def post(key: str, *headers: str, body: bytes = BODY, line: str = "POST /v1/images/generations HTTP/1.1") -> bytes:
    common = ("Host: lightmeter", f"Authorization: Bearer {key}", "Content-Type: application/json", "Connection: close")
    return "\r\n".join((line, *common, *headers, "", "")).encode() + body


def length(body: bytes = BODY) -> str:
    return f"Content-Length: {len(body)}"


def test_a_plain_request(gateway: RunningGateway) -> None:
    key = gateway.make_key()
    answer = exchange(gateway, post(key, length()))
    assert answer.status == 200
    assert "python" not in answer.headers["Server"].lower()
    allowed = {"Content-Type", "Content-Length", "Date", "Server", "x-request-id", "Connection"}
    assert set(answer.headers) <= allowed


@pytest.mark.parametrize("prompt", ["a cube", "[sample image_bytes=300000] a cube"])
def test_a_client_of_http_1_0_gets_its_answer_too(gateway: RunningGateway, prompt: str) -> None:
    key = gateway.make_key()
    body = json.dumps({"model": "acme/image-1", "prompt": prompt}).encode()
    answer = exchange(gateway, post(key, length(body), body=body, line="POST /v1/images/generations HTTP/1.0"))
    assert answer.status == 200
    assert "Transfer-Encoding" not in answer.headers
    assert len(answer.json["data"]) == 1
    gateway.check_books(key)


@pytest.mark.parametrize(
    "headers",
    [
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked, chunked",),
        ("Transfer-Encoding: chunked", length()),
        (length(), "Content-Length: 1"),
        (length(), "Authorization: Bearer lm_x"),
    ],
)
def test_ambiguous_framing_and_keys_are_refused(gateway: RunningGateway, headers: tuple[str, ...]) -> None:
    key = gateway.make_key(100_000)
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if "chunked" in headers[0] else BODY
    answer = exchange(gateway, post(key, *headers, body=body))
    assert answer.status in (400, 401)
    assert gateway.quota(key)["posted"] == 0


@pytest.mark.parametrize(
    "line",
    [
        "POST http://elsewhere/v1/images/generations HTTP/1.1",
        "POST /v1/images/%67enerations HTTP/1.1",
        "POST /v1/images/generations HTTP/0.9",
        "POST //v1/images/generations HTTP/1.1",
        "POST /v1/images/../images/generations HTTP/1.1",
    ],
)
def test_other_ways_to_write_a_target_lead_nowhere(gateway: RunningGateway, line: str) -> None:
    key = gateway.make_key(100_000)
    answer = exchange(gateway, post(key, length(), line=line))
    assert 400 <= answer.status < 500
    assert gateway.quota(key)["posted"] == 0


def test_a_chunked_body(gateway: RunningGateway) -> None:
    key = gateway.make_key()
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    assert exchange(gateway, post(key, "Transfer-Encoding: chunked", body=chunked)).status == 200


def test_nobody_is_asked_to_go_on_before_the_key_has_been_looked_at(gateway: RunningGateway) -> None:
    answer = exchange(gateway, post("lm_wrong", length(), "Expect: 100-continue", body=b""))
    assert answer.status == 401
    key = gateway.make_key()
    with connect(gateway) as connection:
        connection.sendall(post(key, length(), "Expect: 100-continue", body=b""))
        assert connection.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert connection.recv(1_000).startswith(b"HTTP/1.1 200 OK")


@pytest.fixture(scope="module")
def impatient(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that does not wait long for its clients."""
    folder: Path = tmp_path_factory.mktemp("impatient")
    patience = {"body_timeout": 0.3, "keepalive_timeout": 0.5, "write_timeout": 0.5}
    with running_gateway(folder, configuration(f"embedded:{folder}/data", provider.url, server=patience)) as running:
        yield running


def test_a_body_that_does_not_come_is_a_timeout(impatient: RunningGateway) -> None:
    key = impatient.make_key(100_000)
    answer = exchange(impatient, post(key, length(), body=BODY[:10]))
    assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")
    assert impatient.ledger(key) == []


def test_a_connection_that_says_nothing_is_closed(impatient: RunningGateway) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"POST /v1/images/generations HTTP/1.1\r\nHost: lightmeter\r\n")
        began = time.monotonic()
        while connection.recv(65_536):
            pass
        assert time.monotonic() - began < 5


def test_a_client_that_leaves_is_charged_for_what_was_made(impatient: RunningGateway) -> None:
    key = impatient.make_key(100_000)
    body = json.dumps({"model": "acme/image-1", "prompt": "[sample delay_ms=400] a cube", "n": 2}).encode()
    with connect(impatient) as connection:
        connection.sendall(post(key, length(body), body=body))
        # The provider is at work when the client goes.
        while not impatient.quota(key)["reserved"]:
            pass
    entry = wait_for_entry(impatient, key)
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("abandoned", 2, 10_000)
    impatient.check_books(key)


@pytest.fixture(scope="module")
def thrifty(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that makes no images for clients that have left."""
    folder: Path = tmp_path_factory.mktemp("thrifty")
    toml = configuration(f"embedded:{folder}/data", provider.url, accounting={"client_gone": "cancel"})
    with running_gateway(folder, toml) as running:
        yield running


def test_a_provider_is_stopped_where_the_client_has_left_before_the_answer(thrifty: RunningGateway) -> None:
    key = thrifty.make_key(100_000)
    body = json.dumps({"model": "acme/image-1", "prompt": "[sample delay_ms=30000] a cube", "n": 2}).encode()
    began = time.monotonic()
    with connect(thrifty) as connection:
        connection.sendall(post(key, length(body), body=body))
        while not thrifty.quota(key)["reserved"]:
            pass
    entry = wait_for_entry(thrifty, key)
    assert time.monotonic() - began < 15
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("abandoned", 0, 0)
    thrifty.check_books(key)


def test_a_provider_is_stopped_in_the_middle_and_what_was_complete_is_charged(thrifty: RunningGateway) -> None:
    key = thrifty.make_key(100_000)
    prompt = "[sample image_bytes=90000 stall_after=300000] a cube"
    fields = {"model": "acme/image-1", "prompt": prompt, "n": 4, "response_format": "b64_json"}
    body = json.dumps(fields).encode()
    with connect(thrifty) as connection:
        connection.sendall(post(key, length(body), body=body))
        received = 0
        while received < 250_000:
            received += len(connection.recv(65_536))
    entry = wait_for_entry(thrifty, key)
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("abandoned", 3, 15_000)
    thrifty.check_books(key)


def test_a_client_that_never_reads_is_let_go_and_charged(impatient: RunningGateway) -> None:
    key = impatient.make_key(100_000)
    prompt = "[sample image_bytes=20000000] a cube"
    body = json.dumps({"model": "acme/image-1", "prompt": prompt, "response_format": "b64_json"}).encode()
    with connect(impatient) as connection:
        connection.sendall(post(key, length(body), body=body))
        entry = wait_for_entry(impatient, key)
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("abandoned", 1, 5_000)
    impatient.check_books(key)


def wait_for_entry(gateway: RunningGateway, key: str) -> dict[str, object]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        entries = gateway.ledger(key)
        if entries:
            return entries[0]
    raise TimeoutError("no entry in the ledger")


def test_a_client_that_does_not_read_the_end_is_let_go_too(impatient: RunningGateway) -> None:
    key = impatient.make_key(100_000)
    prompt = "[sample image_bytes=3000000] a cube"
    body = json.dumps({"model": "acme/image-1", "prompt": prompt, "response_format": "b64_json", "n": 1}).encode()
    with connect(impatient) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.sendall(post(key, length(body), body=body))
        wait_for_entry(impatient, key)
        began = time.monotonic()
        while impatient.server.process.poll() is None and open_connections(impatient) and time.monotonic() - began < 10:
            time.sleep(0.02)
        assert open_connections(impatient) == 0
    impatient.check_books(key)


def open_connections(gateway: RunningGateway) -> int:
    port = urlsplit(gateway.url).port
    connections = psutil.Process(gateway.server.process.pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in connections)
