"""A provider gives addresses that are none of an image: the client does not get them, and nobody pays for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.scene import PRICE, outcomes
from tests.support.gateways import configuration, running_gateway
from tests.support.scripted_provider import Reply, scripted_provider

GOOD = "https://images.example/1.png"
BAD = ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,<script>alert(1)</script>", " https://a.example/"]


@pytest.mark.parametrize("padding", ["", "x" * 100_000], ids=["small", "large"])
def test_they_are_left_out(tmp_path: Path, padding: str) -> None:
    data = [{"url": url} for url in BAD] + [{"url": BAD[0], "b64_json": "QUFB"}, {"url": GOOD}]
    answers = [{"created": 1, "data": data, "more": padding}, {"created": 1, "data": data[:1], "more": padding}]
    with scripted_provider(lambda number: Reply(body=json.dumps(answers[number]).encode())) as provider:
        toml = configuration(f"embedded:{tmp_path}/data", provider.url)
        with running_gateway(tmp_path, toml) as gateway:
            key = gateway.make_key(100 * PRICE)
            assert gateway.generate(key, n=6).json["data"] == [{"b64_json": "QUFB"}, {"url": GOOD}]
            assert gateway.generate(key).json["data"] == []
            assert outcomes(gateway, key) == [("request", "delivered", 2, 2 * PRICE), ("request", "empty", 0, 0)]
            gateway.check_books(key)
