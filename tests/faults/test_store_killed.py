"""kill -9 of the store, and of both at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.scene import ADMIT, PRICE, SETTLE, Scene, held, outcomes, scene
from tests.support.gateways import SampleProvider
from tests.support.processes import wait_for

DELIVERED = [("request", "delivered", 1, PRICE)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_at_admit_nothing_is_forwarded_and_nothing_stays_held(stage: Scene, moment: str) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(PRICE)
    stage.provider.clear()

    def die() -> None:
        stage.store.kill()
        stage.to_store.reset()

    getattr(stage.to_store, moment)(ADMIT, die)
    answer = stage.send(gateway, key).result(timeout=20)
    assert (answer.status, answer.json["error"]["code"]) == (503, "store_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert stage.provider.requests() == []
    stage.store.start()
    stage.come_to_rest(gateway)
    assert outcomes(gateway, key) == []
    assert gateway.generate(key).status == 200
    stage.check(gateway, key)


@pytest.mark.parametrize("backend", ["valkey", "redis"])
def test_in_the_middle_of_a_generation_it_settles_when_the_store_is_back(
    provider: SampleProvider, tmp_path: Path, backend: str
) -> None:
    with scene(tmp_path, provider, backend=backend) as stage:
        gateway = stage.start_gateway()
        key = gateway.make_key(PRICE)
        request = stage.send(gateway, key, "[sample delay_ms=800] a cube")
        wait_for(lambda: held(gateway, key) == PRICE, "the reservation")
        stage.store.kill()
        answer = request.result(timeout=20)
        assert (answer.status, len(answer.json["data"])) == (200, 1)
        stage.store.start()
        stage.check(gateway, key)
        assert outcomes(gateway, key) == DELIVERED


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_at_settle_the_client_has_its_images_and_is_charged_once(
    provider: SampleProvider, tmp_path: Path, moment: str, appendfsync: str
) -> None:
    with scene(tmp_path, provider, appendfsync=appendfsync) as stage:
        gateway = stage.start_gateway()
        key = gateway.make_key(PRICE)
        getattr(stage.to_store, moment)(SETTLE, stage.store.kill)
        answer = stage.send(gateway, key).result(timeout=20)
        assert (answer.status, len(answer.json["data"])) == (200, 1)
        stage.store.start()
        stage.check(gateway, key)
        assert outcomes(gateway, key) == DELIVERED


def test_what_everysec_loses_is_posted_again_by_a_gateway_that_lives(provider: SampleProvider, tmp_path: Path) -> None:
    with scene(tmp_path, provider, appendfsync="everysec") as stage:
        gateway = stage.start_gateway()
        key = gateway.make_key(10 * PRICE)
        assert gateway.generate(key).status == 200
        length = stage.store.file_length()
        for _ in range(3):
            assert gateway.generate(key).status == 200
        stage.store.kill()
        # The machine died before the last three requests reached the disk.
        stage.store.lose_tail(stage.store.file_length() - length)
        stage.store.start()
        found = stage.check(gateway, key)
        assert outcomes(gateway, key) == DELIVERED * 4
        assert found.lost_reservations == 3
        assert "lightmeter_reposted_settlements_total 3.0" in gateway.metrics()


def test_what_everysec_loses_is_bounded_and_told_where_both_die(provider: SampleProvider, tmp_path: Path) -> None:
    with scene(tmp_path, provider, appendfsync="everysec") as stage:
        gateway = stage.start_gateway()
        key = gateway.make_key(10 * PRICE)
        assert gateway.generate(key).status == 200
        lengths = []
        stage.to_store.before(SETTLE, lambda: lengths.append(stage.store.file_length()))
        assert gateway.generate(key).status == 200
        stage.kill(gateway)
        stage.store.kill()
        # The admission reached the disk, and the settlement did not.
        stage.store.lose_tail(stage.store.file_length() - lengths[0])
        stage.store.start()
        following = stage.start_gateway()
        wait_for(lambda: held(following, key) == 0, "the end of the lease")
        assert stage.check(following, key).expired == 1
        assert outcomes(following, key) == [*DELIVERED, ("request", "expired", 0, 0)]


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
def test_both_at_once_in_the_middle_of_generations(provider: SampleProvider, tmp_path: Path, appendfsync: str) -> None:
    with scene(tmp_path, provider, appendfsync=appendfsync) as stage:
        gateway = stage.start_gateway()
        key = gateway.make_key(100 * PRICE)
        requests = [stage.send(gateway, key, f"[sample delay_ms={number * 60}] x") for number in range(20)]
        requests[5].exception(timeout=20)
        stage.store.kill()
        stage.kill(gateway)
        answered = sum(each.exception(timeout=20) is None and each.result().status == 200 for each in requests)
        stage.store.start()
        following = stage.start_gateway()
        wait_for(lambda: held(following, key) == 0, "the end of the leases")
        found = stage.check(following, key)
        entries = outcomes(following, key)
        assert entries.count(DELIVERED[0]) >= answered
        assert len(entries) == entries.count(DELIVERED[0]) + found.expired


def test_both_with_a_settlement_in_the_journal(stage: Scene) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(PRICE)
    stage.to_store.before(SETTLE, stage.store.kill)
    assert stage.send(gateway, key).result(timeout=20).status == 200
    stage.kill(gateway)
    stage.store.start()
    following = stage.start_gateway()
    assert outcomes(following, key) == DELIVERED
    stage.check(following, key)
