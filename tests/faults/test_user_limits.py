"""kill -9 when it matters to what an end user has used: nothing stays held, and the counters equal the ledger."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.scene import ADMIT, PRICE, SETTLE, Scene
from tests.support.gateways import RunningGateway, key_id
from tests.support.processes import wait_for

LIMITS: dict[str, Any] = {"limits_per_user": {"quota_units_per_day": 10 * PRICE, "concurrent_requests": 1}}


def used(gateway: RunningGateway, key: str) -> tuple[int, int, int]:
    """What ann has used of the key today, what is reserved, and her requests in progress."""
    answer = gateway.admin("GET", f"/admin/v1/keys/{key_id(key)}/usage?user=ann")
    limits: dict[str, Any] = answer.json["user"]["limits"]
    day = limits["quota_units_per_day"]
    return day["posted"], day["reserved"], limits["concurrent_requests"]["in_progress"]


@pytest.mark.parametrize(
    ("moment", "script", "posted"), [("after", ADMIT, 0), ("before", SETTLE, 0), ("after", SETTLE, PRICE)]
)
def test_the_gateway_dies(stage: Scene, moment: str, script: tuple[bytes, ...], posted: int) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(None, **LIMITS)
    # The gateway knows from here on that this key limits its users.
    assert gateway.generate(key, user="eve").status == 200

    def die() -> None:
        stage.to_store.reset()
        stage.kill(gateway)

    getattr(stage.to_store, moment)(script, die)
    request = stage.send(gateway, key, user="ann")
    assert isinstance(request.exception(timeout=20), OSError)
    following = stage.start_gateway()
    wait_for(lambda: used(following, key) == (posted, 0, 0), "the end of the lease")
    entry = following.ledger(key)[-1]
    assert (entry["user"], entry["per_user"], entry["charged"]) == ("ann", "key", posted)
    assert following.generate(key, user="ann").status == 200
    stage.check(following, key)


@pytest.mark.parametrize("script", [ADMIT, SETTLE])
def test_the_store_dies_after_it_has_written_and_before_it_has_answered(
    stage: Scene, script: tuple[bytes, ...]
) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(None, **LIMITS)
    assert gateway.generate(key, user="eve").status == 200

    def die() -> None:
        stage.store.kill()
        stage.to_store.reset()

    stage.to_store.after(script, die)
    status = stage.send(gateway, key, user="ann").result(timeout=20).status
    assert status == (503 if script is ADMIT else 200)
    stage.store.start()
    stage.come_to_rest(gateway)
    assert used(gateway, key) == (0 if script is ADMIT else PRICE, 0, 0)
    assert gateway.generate(key, user="ann").status == 200
    stage.check(gateway, key)
