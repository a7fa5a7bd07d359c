"""What a provider adds to its answer costs the gateway's client nothing, however large it is."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.support.gateways import configuration, running_gateway
from tests.support.scripted_provider import Reply, scripted_provider

IMAGE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 1_024).decode()
FOREIGN = {"trace": "x" * 20_000_000}
DATA = {"data": [{"b64_json": IMAGE}]}
SPARE_BYTES = 65_536


@pytest.mark.parametrize("body", [FOREIGN | DATA, DATA | FOREIGN], ids=["before the images", "after the images"])
def test_a_field_of_the_providers_own_is_not_made_up_for(tmp_path: Path, body: dict[str, object]) -> None:
    reply = Reply(headers={"Content-Type": "application/json"}, body=json.dumps(body).encode())
    with (
        scripted_provider(lambda _: reply) as provider,
        running_gateway(tmp_path, configuration(f"embedded:{tmp_path}/data", provider.url)) as gateway,
    ):
        key = gateway.make_key()
        answer = gateway.generate(key)
        assert answer.status == 200
        assert answer.json["data"] == DATA["data"]
        assert "trace" not in answer.json
        assert len(answer.body) < len(IMAGE) + SPARE_BYTES
        gateway.check_books(key)
