"""What a dead process has left in the journal, while another one posts it and is harmed in its turn."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.faults.scene import PRICE, SETTLE, Scene, held, outcomes, ready
from tests.support.gateways import RunningGateway
from tests.support.processes import wait_for

REQUESTS = 12
DELIVERED = ("request", "delivered", 1, PRICE)

Harm = Callable[[Scene, RunningGateway], None]


def kill(stage: Scene, posting: RunningGateway) -> None:
    stage.kill(posting)


def take_store_away(stage: Scene, _posting: RunningGateway) -> None:
    stage.to_store.go_away()


def kill_store(stage: Scene, _posting: RunningGateway) -> None:
    stage.store.kill()


def leave_journal(stage: Scene) -> tuple[str, RunningGateway]:
    """A gateway that died with settlements in its journal, and one on the same folder that lives."""
    # Its leases outlast the test: whoever comes first would reclaim them, and each request have a correction as well.
    dying, posting = stage.start_gateway(accounting={"lease_seconds": 60}), stage.start_gateway()
    key = dying.make_key(REQUESTS * PRICE)
    requests = [stage.send(dying, key, "[sample delay_ms=500] a cube") for _ in range(REQUESTS)]
    wait_for(lambda: held(dying, key) == REQUESTS * PRICE, "the reservations")
    stage.to_store.go_away()
    assert [each.result(timeout=20).status for each in requests] == [200] * REQUESTS
    stage.kill(dying)
    return key, posting


@pytest.mark.parametrize("moment", ["before", "after"], ids=["not_posted", "posted_and_not_told"])
@pytest.mark.parametrize("harm", [kill, take_store_away, kill_store])
def test_harmed_in_the_middle_of_it_everything_is_posted_once(stage: Scene, moment: str, harm: Harm) -> None:
    key, posting = leave_journal(stage)
    harmed = threading.Event()

    def do_harm() -> None:
        harm(stage, posting)
        harmed.set()

    getattr(stage.to_store, moment)(SETTLE, do_harm)
    stage.to_store.come_back()
    assert harmed.wait(30)
    if harm is kill_store:
        stage.store.start()
    stage.to_store.come_back()
    following = stage.start_gateway()
    wait_for(lambda: outcomes(following, key) == [DELIVERED] * REQUESTS, "all entries")
    stage.check(following, key)
    assert following.generate(key).status == 429


def test_requests_that_come_meanwhile_are_served(stage: Scene) -> None:
    key, posting = leave_journal(stage)
    other = stage.start_gateway("other", warm_up=False)
    begun = stage.to_store.before(SETTLE, lambda: None)
    stage.to_store.come_back()
    wait_for(lambda: ready(other)[0] == 200, "the other one")
    new = other.make_key(PRICE)
    assert begun.wait(30)
    assert posting.generate(new).status == 200
    wait_for(lambda: outcomes(posting, key) == [DELIVERED] * REQUESTS, "all entries")
    stage.check(posting, key, new)
