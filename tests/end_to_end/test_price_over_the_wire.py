from __future__ import annotations

from typing import Any

import pytest

from tests.end_to_end.conftest import VECTORS, model_for
from tests.support.gateways import RunningGateway

LIMIT = 1_000_000


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_what_is_charged_is_what_was_generated(gateway: RunningGateway, vector: dict[str, Any]) -> None:
    key = gateway.make_key(LIMIT)
    request = {**vector["request"], "model": model_for(vector["token_multiplier"])}
    request["prompt"] = f"[sample images={vector['delivered_images']}] {request['prompt']}"
    answer = gateway.generate(key, **request)
    assert answer.status == 200
    assert len(answer.json["data"]) == vector["delivered_images"]

    charged = vector["charged_units"]
    assert gateway.quota(key) == {"limit": LIMIT, "posted": charged, "reserved": 0, "remaining": LIMIT - charged}
    (entry,) = gateway.ledger(key)
    assert entry["reserved"] == vector["reserved_units"]
    assert entry["charged"] == charged
    assert entry["overage"] == max(0, charged - vector["reserved_units"])
    assert entry["images"] == vector["delivered_images"]
    assert entry["outcome"] == ("delivered" if vector["delivered_images"] else "empty")
    gateway.check_books(key)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_what_is_reserved_has_to_fit(gateway: RunningGateway, vector: dict[str, Any]) -> None:
    if vector["reserved_units"] == 0:
        key = gateway.make_key(0)
        expected = 200
    else:
        key = gateway.make_key(vector["reserved_units"] - 1)
        expected = 429
    answer = gateway.generate(key, **{**vector["request"], "model": model_for(vector["token_multiplier"])})
    assert answer.status == expected
    gateway.check_books(key)
