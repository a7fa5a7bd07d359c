"""``POST /v1/chat/completions``, over sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.domain.answer_samples import events_of
from tests.support.gateways import (
    Answer,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
    running_gateway,
    sample_provider,
)


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningGateway, SampleProvider]]:
    """A gateway with a model for each rule about text."""
    folder = tmp_path_factory.mktemp("chatting")
    models = [image_model(f"acme/{rule}", "1.5", text=rule) for rule in ("tokens", "free", "refuse")]
    with (
        sample_provider(folder) as provider,
        running_gateway(folder, configuration(f"embedded:{folder}/data", provider.url, models=models)) as gateway,
    ):
        yield gateway, provider


def chat(gateway: RunningGateway, key: str, text: str = "a cube", **fields: Any) -> Answer:
    messages = [{"role": "user", "content": text}]
    body = {"model": "acme/tokens", "messages": messages, "modalities": ["image", "text"], **fields}
    return ask("POST", f"{gateway.url}/v1/chat/completions", key=key, body=body)


def settled(gateway: RunningGateway, key: str) -> tuple[str, int, int]:
    gateway.check_books(key)
    entry = gateway.ledger(key)[-1]
    return entry["outcome"], entry["images"], entry["charged"]


@pytest.mark.parametrize("place", ["images", "content", "text"])
@pytest.mark.parametrize("stream", [False, True])
def test_images_are_passed_on_and_charged(
    chatting: tuple[RunningGateway, SampleProvider], place: str, *, stream: bool
) -> None:
    gateway, provider = chatting
    key = gateway.make_key()
    provider.clear()
    answer = chat(gateway, key, f"[sample image_place={place} repeats=2] x", stream=stream)
    assert answer.status == 200
    assert b"data:image/png;base64," in answer.body or place == "text"
    assert b"cost" not in answer.body
    assert b"sample-image-1" not in answer.body
    assert settled(gateway, key) == ("delivered", 1, 7_500)
    sent = provider.requests()[0]["body"]
    assert sent["model"] == "image-1"
    assert sent.get("stream_options") == ({"include_usage": True} if stream else None)
    if stream:
        assert answer.body.endswith(b"data: [DONE]\n\n")
        events = list(events_of(answer.body))
        assert all(event["model"] == "acme/tokens" for event in events)
        text = "".join(
            part for part in (event["choices"][0]["delta"]["content"] for event in events) if type(part) is str
        )
        assert text.count("](data:image/png;base64,iVBOR") == (3 if place == "text" else 0)
    else:
        assert answer.json["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "outcome"), [("acme/tokens", "delivered"), ("acme/free", "empty")])
def test_text_follows_the_models_rule(
    chatting: tuple[RunningGateway, SampleProvider], model: str, outcome: str, *, stream: bool
) -> None:
    gateway, _ = chatting
    key = gateway.make_key()
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    answer = chat(gateway, key, model=model, modalities=["text"], stream=stream, **options)
    assert answer.status == 200
    tokens = (list(events_of(answer.body))[-1] if stream else answer.json)["usage"]["total_tokens"]
    charged = -(-tokens * 3 // 2) if model == "acme/tokens" else 0
    assert settled(gateway, key) == (outcome, 0, charged)


def test_parallel_chats_do_not_overspend_a_quota(chatting: tuple[RunningGateway, SampleProvider]) -> None:
    gateway, _ = chatting
    limit = 250_000
    key = gateway.make_key(limit)
    text = "cubes " * 10_000
    with ThreadPoolExecutor(20) as threads:
        answers = list(
            threads.map(lambda _: chat(gateway, key, text, modalities=["text"], max_tokens=1_000), range(20))
        )
    assert {answer.status for answer in answers} == {200, 429}
    gateway.check_books(key)
    entries = gateway.ledger(key)
    # More than one image costs, so that its price alone would not have covered the text.
    assert all(entry["reserved"] > entry["charged"] > 7_500 and entry["overage"] == 0 for entry in entries)
    quota = gateway.quota(key)
    assert quota["posted"] + quota["reserved"] <= limit
    assert quota["posted"] == sum(entry["charged"] for entry in entries)


def test_a_model_for_images_only_refuses_to_chat(chatting: tuple[RunningGateway, SampleProvider]) -> None:
    gateway, _ = chatting
    key = gateway.make_key()
    refused = chat(gateway, key, model="acme/refuse", modalities=["text"])
    assert (refused.status, refused.json["error"]["param"]) == (400, "modalities")
    assert chat(gateway, key, "[sample images=0] x", model="acme/refuse").status == 200
    assert settled(gateway, key) == ("empty", 0, 0)


def test_4k_has_its_price_and_unknown_fields_are_named(chatting: tuple[RunningGateway, SampleProvider]) -> None:
    gateway, _ = chatting
    key = gateway.make_key()
    assert chat(gateway, key, image_config={"image_size": "4K", "aspect_ratio": "1:1"}).status == 200
    assert settled(gateway, key) == ("delivered", 1, 18_750)
    refused = chat(gateway, key, price=0)
    assert (refused.status, refused.json["error"]["code"]) == (400, "unknown_parameter")


@pytest.mark.parametrize(
    ("behaviour", "status", "outcome", "images"),
    [
        ("error_after_events=2", 200, "truncated", 1),
        ("end_after_events=1", 200, "failed", 0),
        ("status=429", 429, "refused", 0),
    ],
)
def test_streams_that_fail(
    chatting: tuple[RunningGateway, SampleProvider], behaviour: str, status: int, outcome: str, images: int
) -> None:
    gateway, _ = chatting
    key = gateway.make_key()
    answer = chat(gateway, key, f"[sample {behaviour}] x", stream=True)
    assert answer.status == status
    assert settled(gateway, key) == (outcome, images, images * 7_500)


@pytest.mark.parametrize("place", ["images", "content", "text"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_in_another_form_gets_the_one_that_was_asked_for(
    chatting: tuple[RunningGateway, SampleProvider], place: str, *, stream: bool
) -> None:
    gateway, _ = chatting
    key = gateway.make_key()
    answer = chat(gateway, key, f"[sample other_form image_place={place}] x", stream=stream)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == ("text/event-stream" if stream else "application/json")
    documents = list(events_of(answer.body)) if stream else [answer.json]
    assert {document["object"] for document in documents} == {"chat.completion.chunk" if stream else "chat.completion"}
    said = documents[0]["choices"][0]["delta" if stream else "message"]
    assert json.dumps(said).count("data:image/png;base64,iVBOR") == 1
    assert settled(gateway, key) == ("delivered", 1, 7_500)


def test_a_stream_that_breaks_off_is_put_together(
    chatting: tuple[RunningGateway, SampleProvider],
) -> None:
    gateway, _ = chatting
    key = gateway.make_key()
    answer = chat(gateway, key, "[sample other_form end_after_events=2 image_bytes=400] x")
    assert (answer.status, answer.json["choices"][0]["finish_reason"]) == (200, "length")
    assert len(answer.json["choices"][0]["message"]["images"]) == 1
    assert settled(gateway, key) == ("truncated", 1, 7_500)


def test_openais_own_client_chats(chatting: tuple[RunningGateway, SampleProvider]) -> None:
    gateway, _ = chatting
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.make_key()) as client:
        asked: dict[str, Any] = {
            "model": "acme/tokens",
            "messages": [{"role": "user", "content": "a cube"}],
            "modalities": ["image", "text"],
        }
        whole = client.chat.completions.create(**asked)
        assert whole.choices[0].message.model_dump()["images"]
        chunks = list(client.chat.completions.create(**asked, stream=True))
        assert any("images" in chunk.choices[0].delta.model_dump() for chunk in chunks)


@pytest.mark.parametrize("behaviour", ["image_place=images", "image_place=text", "other_form"])
def test_large_images_are_not_held(chatting: tuple[RunningGateway, SampleProvider], behaviour: str) -> None:
    gateway, _ = chatting
    key = gateway.make_key()
    for stream in (False, True):
        text = f"[sample image_bytes=30000000 {behaviour}] x"
        chat(gateway, key, text, stream=stream)
        before = gateway.memory_bytes()
        assert len(chat(gateway, key, text, stream=stream).body) > 30_000_000
        assert gateway.memory_bytes() - before < 4_000_000
        assert settled(gateway, key) == ("delivered", 1, 7_500)
