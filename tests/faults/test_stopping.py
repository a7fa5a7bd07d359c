"""SIGTERM at every moment, and a restart that nobody notices."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.load import Load
from tests.faults.scene import PRICE, SETTLE, Scene, held, outcomes, ready, scene
from tests.support.gateways import SampleProvider
from tests.support.processes import free_port, wait_for

DELIVERED = ("request", "delivered", 1, PRICE)


def test_with_thirty_in_flight_all_finish_and_all_are_settled(stage: Scene) -> None:
    gateway, other = stage.start_gateway(), stage.start_gateway("other")
    key = gateway.make_key(None)
    requests = [stage.send(gateway, key, "[sample delay_ms=1200] a cube") for _ in range(30)]
    wait_for(lambda: held(other, key) == 30 * PRICE, "thirty reservations")
    gateway.server.process.send_signal(signal.SIGTERM)
    gateway.server.wait_for_output("stopping: 30 requests in flight")
    assert ready(gateway) == (503, "shutting_down")
    late = gateway.generate(key)
    assert (late.status, late.json["error"]["code"]) == (503, "shutting_down")
    assert int(late.headers["Retry-After"]) >= 1
    assert [each.result(timeout=20).status for each in requests] == [200] * 30
    assert gateway.server.process.wait(20) == 0
    assert outcomes(other, key) == [DELIVERED] * 30
    stage.check(other, key)


def test_during_an_upload_it_is_read_to_its_end(stage: Scene) -> None:
    gateway, other = stage.start_gateway(), stage.start_gateway("other")
    key = gateway.make_key(None)
    address = urlsplit(gateway.url)
    body = json.dumps({"model": "acme/image-1", "prompt": "a cube" * 1_000}).encode()
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port or 0), timeout=20) as connection:
        connection.sendall(head.encode() + body[:3_000])
        time.sleep(0.2)
        gateway.server.process.send_signal(signal.SIGTERM)
        gateway.server.wait_for_output("stopping: 1 requests in flight")
        connection.sendall(body[3_000:])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
    assert gateway.server.process.wait(20) == 0
    assert outcomes(other, key) == [DELIVERED]
    stage.check(other, key)


def test_with_the_store_away_settlements_wait_in_the_journal_and_the_exit_is_good(stage: Scene) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(None)
    requests = [stage.send(gateway, key, f"[sample delay_ms={300 + number}] x") for number in range(10)]
    wait_for(lambda: held(gateway, key) == 10 * PRICE, "ten reservations")
    stage.to_store.before(SETTLE, stage.to_store.go_away)
    gateway.server.process.send_signal(signal.SIGTERM)
    assert [each.result(timeout=20).status for each in requests] == [200] * 10
    assert gateway.server.process.wait(20) == 0
    stage.to_store.come_back()
    following = stage.start_gateway()
    assert outcomes(following, key) == [DELIVERED] * 10
    stage.check(following, key)


def test_a_second_signal_stops_at_once_and_the_books_are_right_after_the_next_start(stage: Scene) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(None)
    request = stage.send(gateway, key, "[sample delay_ms=20000] a cube")
    wait_for(lambda: held(gateway, key) == PRICE, "the reservation")
    gateway.server.process.send_signal(signal.SIGTERM)
    gateway.server.wait_for_output("stopping: 1 requests in flight")
    assert gateway.server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert isinstance(request.exception(timeout=20), OSError)
    following = stage.start_gateway()
    wait_for(lambda: held(following, key) == 0, "the end of the lease")
    assert outcomes(following, key) == [("request", "expired", 0, 0)]
    stage.check(following, key)


# --- On one port ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(provider: SampleProvider, tmp_path: Path) -> Iterator[Scene]:
    """Gateways that share their ports."""
    server = {"listen": f"127.0.0.1:{free_port()}", "reuse_port": True}
    admin = {"listen": f"127.0.0.1:{free_port()}"}
    with scene(tmp_path, provider, server=server, admin=admin) as made:
        yield made


def test_a_restart_under_load_loses_no_request(shared: Scene) -> None:
    running = shared.start_gateway("one")
    key = running.make_key(None)
    load = Load(running.url, key, 12)
    try:
        for name in ("two", "three", "four"):
            following = shared.start_gateway(name)
            seen = len(load.statuses)
            wait_for(lambda seen=seen: len(load.statuses) > seen + 20, "requests while both run")  # type: ignore[misc]
            assert running.server.stop() == 0
            running = following
            seen = len(load.statuses)
            wait_for(lambda seen=seen: len(load.statuses) > seen + 20, "requests after it")  # type: ignore[misc]
    finally:
        load.stop()
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert running.quota(key)["posted"] == len(load.statuses) * PRICE
    shared.check(running)
