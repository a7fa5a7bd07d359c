"""Charges by tables and tokens, where the store is away and the gateway is killed: they stay what they were."""

from __future__ import annotations

from typing import Any

from tests.faults.scene import Scene
from tests.support.gateways import image_model
from tests.support.processes import wait_for

TABLE = [{"quality": "low", "base": 2_000}, {"base": 9_000}, {"size": "4K", "base": 45_000}]
BY_USAGE = {"by": "usage", "per_million": {"input_text": 500_000, "output_image": 30_000_000}}
MODELS = [
    image_model(prices=TABLE, inputs={"image": 800}),
    image_model("acme/by-usage", "1.1", prices=TABLE, settle=BY_USAGE),
]


def charge(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry.get(name) for name in ("kind", "reserved", "charged", "overage", "price_rule", "basis"))


def test_a_replayed_charge_is_the_one_that_was_found_when_the_answer_came(stage: Scene) -> None:
    dying = stage.start_gateway(models=MODELS)
    key = dying.make_key(10_000_000)
    asked: list[dict[str, Any]] = [
        {"size": "1024x1024", "n": 2},
        {"size": "1024x1024", "quality": "low"},
        {"model": "acme/by-usage", "quality": "low", "size": "1024x1024"},
    ]
    for fields in asked:
        assert dying.generate(key, prompt="[sample delay_ms=300] a cube", **fields).status == 200
    before = [charge(entry) for entry in dying.ledger(key)]
    assert [each[1] for each in before] == [18_000, 2_000, 2_200]
    # The last one took more than was reserved.
    assert before[2][3] > 0

    requests = [stage.send(dying, key, "[sample delay_ms=300] a cube", **fields) for fields in asked]
    wait_for(lambda: dying.quota(key)["reserved"] == sum(each[1] for each in before), "the reservations")
    stage.to_store.go_away()
    assert [each.result(timeout=20).status for each in requests] == [200] * len(asked)
    stage.kill(dying)
    stage.to_store.come_back()
    following = stage.start_gateway(models=MODELS)
    stage.check(following, key)
    after = [charge(entry) for entry in following.ledger(key)[len(asked) :]]
    assert sorted(after, key=str) == sorted(before, key=str)


def test_a_gateway_that_dies_holding_a_table_s_reservation_leaves_it_void(stage: Scene) -> None:
    dying, following = (stage.start_gateway(name, models=MODELS) for name in ("dying", "following"))
    key = dying.make_key(10_000_000)
    stage.send(dying, key, "[sample delay_ms=20000] a cube")
    wait_for(lambda: dying.quota(key)["reserved"] == 45_000, "the reservation")
    stage.kill(dying)
    wait_for(lambda: following.quota(key)["reserved"] == 0, "the end of its lease")
    (entry,) = following.ledger(key)
    assert (entry["outcome"], entry["charged"], entry["price_rule"]) == ("expired", 0, "size=4k")
    stage.check(following, key)
