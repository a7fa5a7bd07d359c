"""kill -9, and a store that is away, while a model stands in for another one: its price and its name are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scene import ADMIT, SETTLE, Scene, held, scene
from tests.support.fallbacks import check_units
from tests.support.gateways import RunningGateway, SampleProvider, image_model
from tests.support.polled_provider import polled_provider
from tests.support.processes import free_port, wait_for

ASKED, MADE_BY, UNITS = "acme/first", "acme/image-1", 15_000
FIELDS = ("model", "asked_model", "outcome", "unit_price", "reserved", "charged", "overage")
DELIVERED = (MADE_BY, ASKED, "delivered", UNITS, UNITS, UNITS, 0)


NOWHERE = {"name": "nowhere", "base_url": f"http://127.0.0.1:{free_port()}/v1"}
FIRST = {**image_model(ASKED), "provider": "nowhere", "fallback": [MADE_BY]}


@pytest.fixture(name="falling_back", params=["void", "charge"])
def _falling_back(provider: SampleProvider, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    with scene(tmp_path, provider, accounting={"expired": request.param}) as made:
        yield made


def start(stage: Scene) -> RunningGateway:
    """A gateway with a model that nobody can reach, and a dearer one in its place."""
    gateway = stage.start_gateway(models=[FIRST, image_model(MADE_BY, "3")], others=[NOWHERE])
    stage.provider.clear()
    return gateway


def entries(gateway: RunningGateway, key: str) -> list[tuple[object, ...]]:
    return [tuple(entry.get(name) for name in FIELDS) for entry in gateway.ledger(key)]


def test_killed_while_another_model_makes_it(falling_back: Scene) -> None:
    stage = falling_back
    gateway = start(stage)
    key = gateway.make_key(10 * UNITS)
    request = stage.send(gateway, key, "[sample delay_ms=20000] a cube", model=ASKED)
    wait_for(lambda: len(stage.provider.requests()) == 1, "the request at the other model")
    assert held(gateway, key) == UNITS
    stage.kill(gateway)
    assert isinstance(request.exception(timeout=20), OSError)
    following = start(stage)
    wait_for(lambda: held(following, key) == 0, "the end of the lease")
    ((model, _asked, outcome, _price, reserved, charged, _overage),) = entries(following, key)
    # The store knows what was asked for.
    assert (model, outcome, reserved) == (ASKED, "expired", UNITS)
    assert charged in (0, UNITS)
    stage.check(following, key)


def test_killed_before_it_is_told_that_it_was_admitted(falling_back: Scene) -> None:
    stage = falling_back
    gateway = start(stage)
    key = gateway.make_key(UNITS)
    stage.to_store.after(ADMIT, lambda: stage.kill(gateway))
    assert isinstance(stage.send(gateway, key, model=ASKED).exception(timeout=20), OSError)
    assert stage.provider.requests() == []
    following = start(stage)
    wait_for(lambda: held(following, key) == 0, "the end of the lease")
    stage.check(following, key)


def test_a_settlement_in_the_journal_keeps_the_price_of_the_model_that_made_it(falling_back: Scene) -> None:
    stage = falling_back
    gateway = start(stage)
    key = gateway.make_key(10 * UNITS)
    stage.to_store.before(SETTLE, stage.to_store.go_away)
    assert stage.send(gateway, key, model=ASKED).result(timeout=20).status == 200
    wait_for(lambda: "lightmeter_journal_pending_settlements 1.0" in gateway.metrics(), "the journal")
    check_units(gateway, ASKED, MADE_BY)
    stage.kill(gateway)
    stage.to_store.come_back()
    following = start(stage)
    wait_for(lambda: entries(following, key) != [], "the settlement")
    assert entries(following, key)[-1] in (DELIVERED, (MADE_BY, ASKED, "delivered", UNITS, UNITS, 0, 0))
    assert following.quota(key)["posted"] == UNITS
    stage.check(following, key)


def test_a_settlement_whose_answer_was_lost_is_posted_once(falling_back: Scene) -> None:
    stage = falling_back
    gateway = start(stage)
    key = gateway.make_key(10 * UNITS)
    stage.to_store.after(SETTLE, stage.to_store.reset)
    assert stage.send(gateway, key, model=ASKED).result(timeout=20).status == 200
    stage.come_to_rest(gateway)
    assert entries(gateway, key) == [DELIVERED]
    stage.check(gateway, key)
    check_units(gateway, ASKED, MADE_BY)


def test_a_task_that_another_model_has_accepted_is_settled_by_the_next_gateway_at_its_price(
    provider: SampleProvider, tmp_path: Path
) -> None:
    with scene(tmp_path, provider, accounting={"lease_seconds": 20}) as stage, polled_provider() as polled:
        settings = {
            "dialect": polled.dialect,
            "base_url": f"{polled.url}/v1",
            "result_hosts": [polled.url],
            "poll_interval": 0.05,
            "max_poll_interval": 0.1,
        }
        models = [FIRST, image_model(MADE_BY, "3")]
        gateway = stage.start_gateway(models=models, others=[NOWHERE], provider=settings)
        key = gateway.make_key(10 * UNITS)
        polled.reset()
        polled.holds = True
        request = stage.send(gateway, key, model=ASKED)
        wait_for(lambda: len(polled.tasks) == 1 and polled.polls >= 2, "looks at the task")
        assert held(gateway, key) == UNITS
        stage.kill(gateway)
        assert isinstance(request.exception(timeout=20), OSError)
        following = stage.start_gateway(models=models, others=[NOWHERE], provider=settings, warm_up=False)
        polled.release()
        wait_for(lambda: entries(following, key) != [], "the settlement")
        assert entries(following, key) == [(MADE_BY, ASKED, "abandoned", UNITS, UNITS, UNITS, 0)]
        assert len(polled.tasks) == 1
        stage.check(following, key)
