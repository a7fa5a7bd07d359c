"""A JSON answer that is long in coming shows signs of life; what fails after that stands in the 200."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http import client as http
from urllib.parse import urlsplit

import openai
import pytest

from tests.support.gateways import RunningGateway, configuration, image_model, running_gateway
from tests.support.scripted_provider import Reply, ScriptedProvider, scripted_provider

PRICE = 5_000
REFUSAL = b'{"error":{"code":"moderation_blocked","message":"no"}}'
BODY = json.dumps({"created": 1, "data": [{"url": "https://images.example/1.png"}]}).encode()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningGateway, ScriptedProvider]]:
    folder = tmp_path_factory.mktemp("json-keepalive")
    with scripted_provider(lambda _number: Reply(body=BODY)) as provider:
        toml = configuration(
            f"embedded:{folder}/data",
            provider.url,
            models=[image_model(parameters=["n", "size", "stream"])],
            server={"json_keepalive_seconds": 0.1, "stream_keepalive_seconds": 0.1},
        )
        with running_gateway(folder, toml) as gateway:
            yield gateway, provider


def send(gateway: RunningGateway, key: str, held: threading.Event, **fields: object) -> tuple[http.HTTPResponse, bytes]:
    """One request, whose provider answers when the client has seen the first byte of the gateway's answer."""
    address = urlsplit(gateway.url)
    connection = http.HTTPConnection(address.hostname or "", address.port, timeout=30)
    body = json.dumps({"model": "acme/image-1", "prompt": "x", **fields})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/images/generations", body, headers)
    response = connection.getresponse()
    first = response.read(3)
    held.set()
    rest = response.read()
    connection.close()
    return response, first + rest


def test_a_late_answer_begins_with_blanks(patient: tuple[RunningGateway, ScriptedProvider]) -> None:
    gateway, provider = patient
    held, key = threading.Event(), gateway.make_key(100_000)
    provider.script = lambda _number: Reply(body=BODY, held=held)
    response, body = send(gateway, key, held)
    assert (response.status, response.getheader("Content-Type")) == (200, "application/json")
    assert body.startswith(b"   ")
    assert json.loads(body)["data"] == [{"url": "https://images.example/1.png"}]
    assert [entry["charged"] for entry in gateway.ledger(key)] == [PRICE]
    gateway.check_books(key)


@pytest.mark.parametrize(
    ("reply", "code", "outcome"),
    [
        (
            Reply(status=400, body=b'{"error":{"code":"moderation_blocked","message":"no"}}'),
            "moderation_blocked",
            "refused",
        ),
        (Reply(status=500), "upstream_error", "failed"),
        (Reply(body=b"<html>"), "upstream_error", "failed"),
        (Reply(broken=True), "upstream_error", "failed"),
    ],
    ids=["refusal", "500", "no JSON", "broken"],
)
def test_what_fails_after_that_is_an_error_in_the_200(
    patient: tuple[RunningGateway, ScriptedProvider], reply: Reply, code: str, outcome: str
) -> None:
    gateway, provider = patient
    held, key = threading.Event(), gateway.make_key(100_000)
    late = Reply(reply.status, reply.headers, reply.body, held, reply.broken)
    provider.script = lambda _number: late
    response, body = send(gateway, key, held)
    assert (response.status, json.loads(body)["error"]["code"]) == (200, code)
    (entry,) = gateway.ledger(key)
    assert (entry["outcome"], entry["charged"]) == (outcome, 0)
    gateway.check_books(key)


def test_a_broken_answer_is_closed_after_its_last_image(patient: tuple[RunningGateway, ScriptedProvider]) -> None:
    gateway, provider = patient
    held, key = threading.Event(), gateway.make_key(100_000)
    provider.script = lambda _number: Reply(body=BODY[:-2], held=held)
    _, body = send(gateway, key, held)
    assert len(json.loads(body)["data"]) == 1
    assert [entry["charged"] for entry in gateway.ledger(key)] == [PRICE]
    gateway.check_books(key)


def test_an_answer_in_time_has_no_blanks_and_a_stream_never_has(
    patient: tuple[RunningGateway, ScriptedProvider],
) -> None:
    gateway, provider = patient
    key = gateway.make_key(100_000)
    provider.script = lambda _number: Reply(body=BODY)
    assert gateway.generate(key).body.startswith(b"{")
    held = threading.Event()
    provider.script = lambda _number: Reply(body=BODY, held=held)
    response, body = send(gateway, key, held, stream=True)
    assert response.getheader("Content-Type") == "text/event-stream"
    assert body.startswith(b": keep-alive\n")


def test_openais_client_reads_it(patient: tuple[RunningGateway, ScriptedProvider]) -> None:
    gateway, provider = patient
    held = threading.Event()
    provider.script = lambda _number: Reply(body=BODY, held=held)
    threading.Timer(0.5, held.set).start()
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.make_key(100_000), max_retries=0) as client:
        images = client.images.generate(model="acme/image-1", prompt="x")
    assert [image.url for image in images.data or []] == ["https://images.example/1.png"]
