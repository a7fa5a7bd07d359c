"""More images than a provider makes at once: several requests to it, and one of everything else."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest

from tests.domain.answer_samples import events_of
from tests.support.gateways import RunningGateway, configuration, image_model, running_gateway
from tests.support.polling import eventually
from tests.support.scripted_provider import Reply, ScriptedProvider, scripted_provider

PRICE = 5_000
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\4\0\0\0\4\0\x08\x02\0\0\0"


def image(number: int, length: int = 300) -> str:
    return base64.b64encode(PNG + number.to_bytes(3) * (length // 3)).decode()


def answer(number: int, length: int = 300, tokens: int = 10) -> bytes:
    return json.dumps(
        {
            "candidates": [
                {"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": image(number, length)}}]}}
            ],
            "usageMetadata": {"totalTokenCount": tokens, "promptTokenCount": 1},
        }
    ).encode()


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with scripted_provider(lambda number: Reply(body=answer(number))) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("side-by-side")
    model = image_model(parameters=["stream", "size"])
    toml = configuration(
        f"embedded:{folder}/data",
        provider.url,
        models=[model],
        provider={"dialect": "gemini", "base_url": provider.url},
    )
    with running_gateway(folder, toml) as running:
        yield running


def test_n_images_are_n_requests_and_one_of_everything_else(
    gateway: RunningGateway, provider: ScriptedProvider
) -> None:
    barrier = threading.Barrier(4)

    def together(number: int) -> Reply:
        barrier.wait(10)
        return Reply(body=answer(number))

    provider.script = together
    key = gateway.make_key(100_000)
    before = provider.received
    made = gateway.generate(key, n=4)
    assert made.status == 200, made.body
    assert provider.received - before == 4
    assert sorted(entry["b64_json"] for entry in made.json["data"]) == sorted(image(before + at) for at in range(4))
    (entry,) = gateway.ledger(key)
    assert (entry["outcome"], entry["images"], entry["requested_images"], entry["charged"]) == (
        "delivered",
        4,
        4,
        4 * PRICE,
    )
    assert entry["provider_usage"] == {"totalTokenCount": 40, "promptTokenCount": 4}
    assert (entry["provider"], entry["provider_status"]) == ("sample", 200)
    gateway.check_books(key)


def test_they_are_streamed_as_they_come(gateway: RunningGateway, provider: ScriptedProvider) -> None:
    provider.script = lambda number: Reply(body=answer(number))
    key = gateway.make_key(100_000)
    streamed = gateway.generate(key, n=3, stream=True)
    types = [event["type"] for event in events_of(streamed.body)]
    assert types == ["image_generation.completed"] * 3
    assert len({event["b64_json"] for event in events_of(streamed.body)}) == 3
    assert [entry["charged"] for entry in gateway.ledger(key)] == [3 * PRICE]
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        whole = client.images.generate(model="acme/image-1", prompt="x", n=2)
        assert len(whole.data or []) == 2


@pytest.mark.parametrize(
    "failure",
    [
        Reply(status=500),
        Reply(broken=True),
        Reply(body=b"<html>"),
        Reply(body=json.dumps({"promptFeedback": {"blockReason": "SAFETY"}}).encode()),
        Reply(body=answer(7)[:200]),
    ],
    ids=["500", "no answer", "no JSON", "a refusal", "half an answer"],
)
def test_what_fails_is_released(gateway: RunningGateway, provider: ScriptedProvider, failure: Reply) -> None:
    base = provider.received
    provider.script = lambda number: failure if number - base == 1 else Reply(body=answer(number))
    key = gateway.make_key(100_000)
    made = gateway.generate(key, n=3)
    assert (made.status, len(made.json["data"])) == (200, 2)
    (entry,) = gateway.ledger(key)
    assert (entry["images"], entry["charged"], entry["reserved"]) == (2, 2 * PRICE, 3 * PRICE)
    gateway.check_books(key)


@pytest.mark.parametrize("stream", [False, True])
def test_where_all_fail_the_first_says_why(
    gateway: RunningGateway, provider: ScriptedProvider, *, stream: bool
) -> None:
    provider.script = lambda _number: Reply(body=json.dumps({"promptFeedback": {"blockReason": "SAFETY"}}).encode())
    key = gateway.make_key(100_000)
    made = gateway.generate(key, n=3, stream=stream)
    assert (made.status, made.json["error"]["code"]) == (400, "safety")
    (entry,) = gateway.ledger(key)
    assert (entry["outcome"], entry["charged"]) == ("empty", 0)
    gateway.check_books(key)


def test_large_images_flow_one_after_the_other(gateway: RunningGateway, provider: ScriptedProvider) -> None:
    provider.script = lambda number: Reply(body=answer(number, 3_000_000))
    key = gateway.make_key(100_000)
    before_bytes = gateway.memory_bytes()
    made = gateway.generate(key, n=4)
    assert len({entry["b64_json"] for entry in made.json["data"]}) == 4
    assert gateway.memory_bytes() - before_bytes < 12_000_000
    gateway.check_books(key)


def test_in_parallel_at_the_limit_no_more_is_made_than_is_paid_for(
    gateway: RunningGateway, provider: ScriptedProvider
) -> None:
    provider.script = lambda number: Reply(body=answer(number))
    key = gateway.make_key(7 * PRICE)
    before = provider.received
    with ThreadPoolExecutor(8) as clients:
        statuses = list(clients.map(lambda _: gateway.generate(key, n=3).status, range(8)))
    assert sorted(statuses) == [200, 200, *[429] * 6]
    assert provider.received - before == 6
    assert gateway.quota(key)["posted"] == 6 * PRICE
    gateway.check_books(key)


@pytest.mark.parametrize("client_gone", ["finish", "cancel"])
def test_a_client_that_leaves_leaves_nothing_behind(tmp_path: Path, client_gone: str) -> None:
    with scripted_provider(lambda number: Reply(body=answer(number, 12_000_000))) as provider:
        toml = configuration(
            f"embedded:{tmp_path}/data",
            provider.url,
            models=[image_model(parameters=["stream"])],
            provider={"dialect": "gemini", "base_url": provider.url},
            accounting={"client_gone": client_gone},
        )
        with running_gateway(tmp_path, toml) as gateway:
            key = gateway.make_key(100_000)
            address = urlsplit(gateway.url)
            connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
            body = json.dumps({"model": "acme/image-1", "prompt": "x", "n": 4})
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/images/generations", body, headers)
            connection.getresponse().read(100_000)
            connection.close()
            asyncio.run(eventually(lambda: gateway.ledger(key)))
            (entry,) = gateway.ledger(key)
            assert entry["outcome"] == "abandoned"
            assert entry["images"] == 4 if client_gone == "finish" else entry["images"] < 4
            asyncio.run(eventually(lambda: provider.at_once == 0))
            gateway.check_books(key)
