"""A provider that makes more and more images is broken off, and no more are charged than that."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.gateways import ALL_PARAMETERS, RunningGateway, configuration, image_model, running_gateway
from tests.support.scripted_provider import Reply, scripted_provider


def images(count: int) -> bytes:
    return json.dumps(
        {"created": 1, "data": [{"url": f"https://images.example/{n}.png"} for n in range(count)]}
    ).encode()


def events(count: int) -> bytes:
    event = {"type": "image_generation.completed", "b64_json": "QUFB", "created_at": 1, "usage": {}}
    return b"".join(
        b"data: %b\n\n" % json.dumps({**event, "b64_json": f"QUFB{number:08}"}).encode() for number in range(count)
    )


def read(gateway: RunningGateway, key: str, **fields: Any) -> tuple[int, bool]:
    """The status, and whether the answer was whole."""
    address = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    body = json.dumps({"model": "acme/image-1", "prompt": "x", **fields})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/images/generations", body, headers)
    response = connection.getresponse()
    try:
        response.read()
    except (http.client.IncompleteRead, ConnectionError):
        return response.status, False
    finally:
        connection.close()
    return response.status, True


@pytest.mark.parametrize(
    ("count", "n", "stream", "charged", "outcome"),
    [
        (16, 1, False, 16, "delivered"),
        (30, 1, False, 16, "delivered"),
        (24, 6, False, 24, "delivered"),
        (5_000, 1, False, 16, "truncated"),
        (5_000, 6, False, 24, "truncated"),
        (2_000, 1, True, 16, "truncated"),
    ],
)
def test_no_more_are_charged(tmp_path: Path, count: int, n: int, charged: int, outcome: str, *, stream: bool) -> None:
    headers = {"Content-Type": "text/event-stream" if stream else "application/json"}
    reply = Reply(headers=headers, body=events(count) if stream else images(count))
    with scripted_provider(lambda _number: reply) as provider:
        model = image_model(parameters=[*ALL_PARAMETERS, "stream"], max_n=10)
        toml = configuration(f"embedded:{tmp_path}/data", provider.url, models=[model])
        with running_gateway(tmp_path, toml) as gateway:
            key = gateway.make_key(1_000_000)
            status, whole = read(gateway, key, n=n, **({"stream": True} if stream else {}))
            assert (status, whole or stream) == (200, outcome == "delivered" or stream)
            (entry,) = gateway.ledger(key)
            assert (entry["outcome"], entry["images"], entry["charged"]) == (outcome, charged, charged * 5_000)
            gateway.check_books(key)
