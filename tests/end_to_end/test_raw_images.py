"""A provider whose answer is an image's bytes: the client gets base64, and what was filtered is not charged."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import openai
import pytest

from tests.support.gateways import Answer, RunningGateway, configuration, image_model, running_gateway
from tests.support.scripted_provider import Reply, ScriptedProvider, scripted_provider

PRICE = 5_000
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\4\0\0\0\4\0\x08\x02\0\0\0" + bytes(range(256)) * 4_001
HEADERS = {"Content-Type": "image/png", "finish-reason": "SUCCESS", "seed": "7"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningGateway, ScriptedProvider]]:
    folder = tmp_path_factory.mktemp("stability")
    with scripted_provider(lambda _number: Reply(headers=HEADERS, body=PNG)) as provider:
        toml = configuration(
            f"embedded:{folder}/data",
            provider.url,
            models=[image_model(upstream_model="core", parameters=["n", "size", "stream"])],
            provider={"dialect": "stability", "base_url": f"{provider.url}/v2beta/stable-image", "idle_timeout": 2},
        )
        with running_gateway(folder, toml) as gateway:
            yield gateway, provider


def ask(pair: tuple[RunningGateway, ScriptedProvider], reply: Reply, **fields: object) -> tuple[Answer, list[object]]:
    gateway, provider = pair
    provider.script = lambda _number: reply
    key = gateway.make_key(10 * PRICE)
    answer = gateway.generate(key, **fields)
    gateway.check_books(key)
    return answer, [(entry["outcome"], entry["images"], entry["charged"]) for entry in gateway.ledger(key)]


@pytest.mark.parametrize("length", [30, 31, 32, 33, len(PNG)])
def test_bytes_become_base64(running: tuple[RunningGateway, ScriptedProvider], length: int) -> None:
    answer, entries = ask(running, Reply(headers=HEADERS, body=PNG[:length]))
    assert [base64.b64decode(image["b64_json"]) for image in answer.json["data"]] == [PNG[:length]]
    assert isinstance(answer.json["created"], int)
    assert entries == [("delivered", 1, PRICE)]


def test_several_are_asked_for_side_by_side(running: tuple[RunningGateway, ScriptedProvider]) -> None:
    gateway, provider = running
    provider.script = lambda number: Reply(headers=HEADERS, body=PNG + bytes([number]))
    key = gateway.make_key(10 * PRICE)
    answer = gateway.generate(key, n=3)
    assert len({image["b64_json"] for image in answer.json["data"]}) == 3
    assert [entry["charged"] for entry in gateway.ledger(key)] == [3 * PRICE]


def test_the_openai_sdk_streams_one(running: tuple[RunningGateway, ScriptedProvider]) -> None:
    gateway, provider = running
    provider.script = lambda _number: Reply(headers=HEADERS, body=PNG)
    client = openai.OpenAI(api_key=gateway.make_key(PRICE), base_url=f"{gateway.url}/v1", max_retries=0)
    (event,) = client.images.generate(model="acme/image-1", prompt="a cube", stream=True)
    assert base64.b64decode(event.b64_json) == PNG


def test_what_was_filtered_is_no_image(running: tuple[RunningGateway, ScriptedProvider]) -> None:
    answer, entries = ask(running, Reply(headers={**HEADERS, "finish-reason": "CONTENT_FILTERED"}, body=PNG))
    assert (answer.status, answer.json["error"]["code"]) == (400, "content_filtered")
    assert entries == [("empty", 0, 0)]


def test_a_refusal_is_the_clients(running: tuple[RunningGateway, ScriptedProvider]) -> None:
    body = json.dumps({"id": "x", "name": "content_moderation", "errors": ["Your request was flagged."]}).encode()
    answer, entries = ask(running, Reply(403, body=body))
    assert (answer.status, answer.json["error"]["message"]) == (400, "Your request was flagged.")
    assert entries == [("refused", 0, 0)]


def test_a_document_is_read_as_any_other(running: tuple[RunningGateway, ScriptedProvider]) -> None:
    body = json.dumps({"image": base64.b64encode(PNG).decode(), "finish_reason": "SUCCESS", "seed": 7}).encode()
    answer, entries = ask(running, Reply(body=body))
    assert base64.b64decode(answer.json["data"][0]["b64_json"]) == PNG
    assert entries == [("delivered", 1, PRICE)]


def test_an_image_that_breaks_off_is_none(running: tuple[RunningGateway, ScriptedProvider]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    answer, entries = ask(running, Reply(raw=head + PNG[:500]))
    assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
    assert entries == [("failed", 0, 0)]


def test_what_only_says_that_it_is_one_is_none(running: tuple[RunningGateway, ScriptedProvider]) -> None:
    answer, entries = ask(running, Reply(headers=HEADERS, body=b"<html>no image, whatever its head says</html>"))
    assert answer.status == 502
    assert entries == [("failed", 0, 0)]
