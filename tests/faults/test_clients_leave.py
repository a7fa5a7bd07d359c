"""A client that leaves, or never reads, at each stage: it ends in one entry, and nothing is generated for nobody."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.faults.scene import PRICE, Scene, held, outcomes, scene
from tests.support.gateways import RunningGateway, SampleProvider, key_id
from tests.support.processes import wait_for


@pytest.fixture(scope="module", params=["finish", "cancel"])
def theatre(
    request: pytest.FixtureRequest, provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Scene, RunningGateway, str]]:
    """One scene for each way of treating such clients."""
    folder = tmp_path_factory.mktemp(request.param)
    accounting, server = {"client_gone": request.param}, {"write_timeout": 1.0}
    with scene(folder, provider, accounting=accounting, server=server) as made:
        yield made, made.start_gateway(), str(request.param)


@pytest.fixture
def play(theatre: tuple[Scene, RunningGateway, str]) -> tuple[Scene, RunningGateway, str, str]:
    """The scene, its gateway, a new key, and what is done for a client that has left."""
    made, gateway, client_gone = theatre
    made.to_store.come_back()
    made.provider.clear()
    return made, gateway, gateway.make_key(100 * PRICE), client_gone


class Client:
    """A connection that sends a request and does what it likes."""

    def __init__(self, gateway: RunningGateway, key: str, prompt: str, **fields: object) -> None:
        address = urlsplit(gateway.url)
        self.socket = socket.create_connection((address.hostname, address.port or 0), timeout=20)
        body = json.dumps({"model": "acme/image-1", "prompt": prompt, "response_format": "b64_json", **fields}).encode()
        head = (
            f"POST /v1/images/generations HTTP/1.1\r\nHost: lightmeter\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.request = head.encode() + body

    def leave(self) -> None:
        """Reset the connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def test_during_the_upload(play: tuple[Scene, RunningGateway, str, str]) -> None:
    made, gateway, key, _ = play
    client = Client(gateway, key, "a cube")
    client.socket.sendall(client.request[:-10])
    time.sleep(0.1)
    client.leave()
    made.check(gateway, key)
    assert outcomes(gateway, key) == []
    assert made.provider.requests() == []


def test_while_it_is_admitted(play: tuple[Scene, RunningGateway, str, str]) -> None:
    made, gateway, key, _ = play
    made.to_store.delay_s = 0.2
    client = Client(gateway, key, "a cube")
    client.socket.sendall(client.request)
    time.sleep(0.1)
    client.leave()
    time.sleep(0.5)
    made.to_store.come_back()
    made.check(gateway, key)
    # It was admitted, found that nobody was there any more, and was not forwarded.
    assert outcomes(gateway, key) == [("request", "abandoned", 0, 0)]
    assert made.provider.requests() == []


def test_before_the_first_byte(play: tuple[Scene, RunningGateway, str, str]) -> None:
    made, gateway, key, client_gone = play
    client = Client(gateway, key, "[sample delay_ms=1000] a cube", n=2)
    client.socket.sendall(client.request)
    wait_for(lambda: held(gateway, key) == 2 * PRICE, "the reservation")
    wait_for(lambda: bool(made.provider.requests()), "the provider's request")
    client.leave()
    made.check(gateway, key)
    images = 2 if client_gone == "finish" else 0
    assert outcomes(gateway, key) == [("request", "abandoned", images, images * PRICE)]


def unchunked(body: bytes) -> bytes:
    """What the chunks of a body hold."""
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        whole += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return whole


def test_closing_only_its_side_is_not_leaving(play: tuple[Scene, RunningGateway, str, str]) -> None:
    made, gateway, key, _ = play
    client = Client(gateway, key, "[sample delay_ms=1000] a cube", n=2)
    with client.socket:
        client.socket.sendall(client.request)
        client.socket.shutdown(socket.SHUT_WR)
        received = b""
        while part := client.socket.recv(65_536):
            received += part
    _continue, head, body = received.split(b"\r\n\r\n", 2)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    # It is larger than what is held whole, so it comes in chunks; the last of them says that there is no more.
    assert body.endswith(b"\r\n0\r\n\r\n")
    assert len(json.loads(unchunked(body))["data"]) == 2
    made.check(gateway, key)
    assert outcomes(gateway, key) == [("request", "delivered", 2, 2 * PRICE)]


def test_closing_its_connection_is_leaving(play: tuple[Scene, RunningGateway, str, str]) -> None:
    made, gateway, key, client_gone = play
    client = Client(gateway, key, "[sample delay_ms=1000] a cube", n=2)
    with client.socket:
        client.socket.sendall(client.request)
        wait_for(lambda: bool(made.provider.requests()), "the provider's request")
    made.check(gateway, key)
    images = 2 if client_gone == "finish" else 0
    assert outcomes(gateway, key) == [("request", "abandoned", images, images * PRICE)]


def test_in_the_middle_of_the_answer(play: tuple[Scene, RunningGateway, str, str]) -> None:
    made, gateway, key, client_gone = play
    prompt = "[sample image_bytes=200000 chunk_bytes=100000 chunk_delay_ms=150] a cube"
    client = Client(gateway, key, prompt, n=4)
    client.socket.sendall(client.request)
    received = 0
    while received < 300_000:
        received += len(client.socket.recv(65_536))
    client.leave()
    made.check(gateway, key)
    ((_kind, outcome, images, charged),) = outcomes(gateway, key)
    assert (outcome, charged) == ("abandoned", images * PRICE)
    assert images == 4 if client_gone == "finish" else 1 <= images < 4


def test_a_client_that_never_reads_is_dropped_and_settled(play: tuple[Scene, RunningGateway, str, str]) -> None:
    made, gateway, key, client_gone = play
    client = Client(gateway, key, "[sample image_bytes=20000000] a cube")
    client.socket.sendall(client.request)
    wait_for(lambda: bool(outcomes(gateway, key)), "the settlement")
    ((_kind, outcome, images, charged),) = outcomes(gateway, key)
    assert (outcome, charged) == ("abandoned", images * PRICE)
    if client_gone == "finish":
        assert images == 1
    client.leave()
    made.check(gateway, key)


def test_a_key_that_is_revoked_in_the_middle_settles_and_the_next_gets_401(
    play: tuple[Scene, RunningGateway, str, str],
) -> None:
    made, gateway, key, _ = play
    request = made.send(gateway, key, "[sample delay_ms=500] a cube")
    wait_for(lambda: held(gateway, key) == PRICE, "the reservation")
    gateway.admin("DELETE", f"/admin/v1/keys/{key_id(key)}")
    assert gateway.generate(key).status == 401
    assert request.result(timeout=20).status == 200
    assert gateway.generate(key).status == 401
    assert outcomes(gateway, key) == [("request", "delivered", 1, PRICE)]
    made.check(gateway, key)
