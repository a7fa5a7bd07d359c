"""kill -9 of the gateway at every point: what it held is free again, and each forwarded request has its one entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.scene import ADMIT, PRICE, SETTLE, Scene, held, outcomes, scene
from tests.support.gateways import SampleProvider
from tests.support.processes import wait_for

EXPIRED = [("request", "expired", 0, 0)]


def test_before_forwarding(stage: Scene) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(PRICE)
    stage.provider.clear()
    stage.to_store.after(ADMIT, lambda: stage.kill(gateway))
    request = stage.send(gateway, key)
    assert isinstance(request.exception(timeout=20), OSError)
    assert stage.provider.requests() == []
    following = stage.start_gateway()
    wait_for(lambda: held(following, key) == 0, "the end of the lease")
    assert outcomes(following, key) == EXPIRED
    assert stage.check(following, key).expired == 1
    assert following.generate(key).status == 200


@pytest.mark.parametrize(("expired", "charged"), [("void", 0), ("charge", 2 * PRICE)])
def test_in_the_middle_of_a_generation(provider: SampleProvider, tmp_path: Path, expired: str, charged: int) -> None:
    with scene(tmp_path, provider, accounting={"expired": expired}) as stage:
        gateway = stage.start_gateway()
        key = gateway.make_key(10 * PRICE)
        request = stage.send(gateway, key, "[sample delay_ms=20000] a cube", n=2)
        wait_for(lambda: held(gateway, key) == 2 * PRICE, "the reservation")
        stage.kill(gateway)
        assert isinstance(request.exception(timeout=20), OSError)
        # Another gateway need not be the next of the same folder.
        other = stage.start_gateway("other")
        wait_for(lambda: held(other, key) == 0, "the end of the lease")
        assert outcomes(other, key) == [("request", "expired", 0, charged)]
        assert other.quota(key)["remaining"] == 10 * PRICE - charged
        stage.check(other, key)


def test_after_the_provider_finished_and_before_it_was_settled(stage: Scene) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(PRICE)
    made = stage.provider.images_made()

    def die() -> None:
        stage.to_store.reset()
        stage.kill(gateway)

    stage.to_store.before(SETTLE, die)
    request = stage.send(gateway, key)
    assert isinstance(request.exception(timeout=20), OSError)
    assert stage.provider.images_made() == made + 1
    following = stage.start_gateway()
    wait_for(lambda: held(following, key) == 0, "the end of the lease")
    assert outcomes(following, key) == EXPIRED
    stage.check(following, key)


def test_after_it_was_settled_and_before_it_knew(stage: Scene) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(PRICE)
    stage.to_store.after(SETTLE, lambda: stage.kill(gateway))
    request = stage.send(gateway, key)
    assert isinstance(request.exception(timeout=20), OSError)
    following = stage.start_gateway()
    assert outcomes(following, key) == [("request", "delivered", 1, PRICE)]
    stage.check(following, key)


def test_with_a_settlement_in_the_journal(stage: Scene) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(PRICE)
    stage.to_store.before(SETTLE, stage.to_store.go_away)
    answer = stage.send(gateway, key).result(timeout=20)
    assert (answer.status, len(answer.json["data"])) == (200, 1)
    stage.kill(gateway)
    stage.to_store.come_back()
    following = stage.start_gateway()
    assert outcomes(following, key) == [("request", "delivered", 1, PRICE)]
    stage.check(following, key)


def test_with_thirty_requests_at_every_stage(stage: Scene) -> None:
    gateway = stage.start_gateway()
    keys = [gateway.make_key(20 * PRICE) for _ in range(3)]
    requests = [
        stage.send(gateway, keys[number % 3], f"[sample delay_ms={number * 20}] a cube") for number in range(30)
    ]
    requests[10].exception(timeout=20)
    stage.kill(gateway)
    answered = [each.result() for each in requests if each.exception(timeout=20) is None]
    following = stage.start_gateway()
    for key in keys:
        wait_for(lambda key=key: held(following, key) == 0, "the end of the leases")  # type: ignore[misc]
    stage.check(following, *keys)
    entries = [entry for key in keys for entry in outcomes(following, key)]
    # Whoever has a whole answer has been charged for it.
    assert entries.count(("request", "delivered", 1, PRICE)) >= sum(each.status == 200 for each in answered) >= 10
