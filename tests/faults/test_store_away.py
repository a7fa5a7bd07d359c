"""The store out of reach, or its replies lost, at each of its calls."""

from __future__ import annotations

import threading
import time

import pytest

from tests.faults.scene import ADMIT, LEASE_S, PRICE, RENEW, SETTLE, STORE_TIMEOUT_S, Scene, held, outcomes, ready
from tests.support.processes import wait_for

DELIVERED = [("request", "delivered", 1, PRICE)]


@pytest.mark.parametrize("how", ["go_away", "stall"])
def test_at_admit(stage: Scene, how: str) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(PRICE)
    stage.provider.clear()
    getattr(stage.to_store, how)()
    began = time.monotonic()
    answer = stage.send(gateway, key).result(timeout=20)
    assert (answer.status, answer.json["error"]["code"]) == (503, "store_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert time.monotonic() - began < 6 * STORE_TIMEOUT_S
    assert ready(gateway) == (503, "store_unavailable")
    assert stage.provider.requests() == []
    stage.to_store.come_back()
    stage.come_to_rest(gateway)
    assert gateway.generate(key).status == 200
    stage.check(gateway, key)
    assert outcomes(gateway, key) == DELIVERED


@pytest.mark.parametrize("away_s", [0.8, LEASE_S + 1.0])
def test_at_renew_the_request_goes_on_and_settles(stage: Scene, away_s: float) -> None:
    gateway, other = stage.start_gateway(), stage.start_gateway("other")
    key = gateway.make_key(PRICE)
    gone = stage.to_store.before(RENEW, stage.to_store.go_away)
    request = stage.send(gateway, key, f"[sample delay_ms={int((LEASE_S + 2) * 1000)}] a cube")
    assert gone.wait(20)
    time.sleep(away_s)
    stage.to_store.come_back()
    assert request.result(timeout=20).status == 200
    stage.check(other, key)
    # Nobody looked while the lease had run out, and the first thing that its gateway did was to renew it.
    assert outcomes(gateway, key) == DELIVERED


def test_a_slow_render_never_expires_while_its_gateway_lives(stage: Scene) -> None:
    gateway, other = stage.start_gateway(), stage.start_gateway("other")
    key = gateway.make_key(PRICE)
    request = stage.send(gateway, key, f"[sample delay_ms={LEASE_S * 2500}] a cube")
    while not request.done():
        held(other, key)
    assert request.result().status == 200
    assert outcomes(gateway, key) == DELIVERED
    stage.check(other, key)


@pytest.mark.parametrize("how", ["go_away", "stall"])
def test_at_settle_the_client_has_its_images(stage: Scene, how: str) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(PRICE)
    stage.to_store.before(SETTLE, getattr(stage.to_store, how))
    answer = stage.send(gateway, key).result(timeout=20)
    assert (answer.status, len(answer.json["data"])) == (200, 1)
    assert "lightmeter_journal_pending_settlements 1.0" in gateway.metrics()
    stage.to_store.come_back()
    stage.check(gateway, key)
    assert outcomes(gateway, key) == DELIVERED


@pytest.mark.parametrize("script", [ADMIT, SETTLE])
def test_a_reply_that_is_lost_counts_once(stage: Scene, script: tuple[bytes, ...]) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(PRICE)
    lost = stage.to_store.lose_reply(script)
    assert stage.send(gateway, key).result(timeout=20).status == 200
    assert lost.is_set()
    stage.check(gateway, key)
    assert outcomes(gateway, key) == DELIVERED


def test_replies_that_are_lost_twice(stage: Scene) -> None:
    gateway = stage.start_gateway()
    keys = [gateway.make_key(PRICE), gateway.make_key(PRICE)]
    stage.provider.clear()
    for _ in range(2):
        stage.to_store.lose_reply(ADMIT)
    # The first try is lost and the second one as well: nobody knows whether it was admitted, so it is taken back.
    statuses = {stage.send(gateway, keys[0]).result(timeout=20).status}
    for _ in range(2):
        stage.to_store.lose_reply(SETTLE)
    statuses.add(stage.send(gateway, keys[1]).result(timeout=20).status)
    assert statuses <= {200, 503}
    stage.to_store.forget_rules()
    stage.check(gateway, *keys)
    assert outcomes(gateway, keys[1]) == DELIVERED


def test_scripts_flushed_under_load(stage: Scene) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(None)
    stop = threading.Event()

    def flush() -> None:
        with stage.store.client() as client:
            while not stop.wait(0.002):
                client.script_flush()

    flushing = threading.Thread(target=flush)
    flushing.start()
    answers = [each.result(timeout=30) for each in [stage.send(gateway, key) for _ in range(150)]]
    stop.set()
    flushing.join()
    assert [answer.status for answer in answers] == [200] * 150
    stage.check(gateway, key)
    assert gateway.quota(key)["posted"] == 150 * PRICE


def test_a_stall_of_ten_seconds(stage: Scene) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(100 * PRICE)
    first = stage.send(gateway, key, "[sample delay_ms=500] a cube")
    wait_for(lambda: held(gateway, key) == PRICE, "the reservation")
    with stage.store.client() as client:
        client.client_pause(10_000)
    began, statuses = time.monotonic(), []
    while time.monotonic() - began < 9:
        asked = time.monotonic()
        statuses.append(stage.send(gateway, key).result(timeout=20).status)
        assert time.monotonic() - asked < 6 * STORE_TIMEOUT_S
    assert set(statuses) == {503}
    assert first.result(timeout=20).status == 200
    stage.check(gateway, key)
    assert outcomes(gateway, key) == DELIVERED
    assert gateway.generate(key).status == 200


@pytest.mark.parametrize("harm", ["reset", "half_close"])
def test_connections_that_break_under_load(stage: Scene, harm: str) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(None)
    requests = [stage.send(gateway, key, f"[sample delay_ms={number * 5}] x") for number in range(60)]
    while not all(each.done() for each in requests):
        getattr(stage.to_store, harm)()
        time.sleep(0.05)
    statuses = [each.result().status for each in requests]
    assert set(statuses) <= {200, 503}
    stage.check(gateway, key)
    assert outcomes(gateway, key).count(DELIVERED[0]) == statuses.count(200)
