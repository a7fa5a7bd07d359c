"""Chat completions that hold images, over a socket."""

from __future__ import annotations

import base64
import io
from typing import Any

import orjson
import pytest
from PIL import Image

from tests.sample_provider.conftest import Client, Start

PATH = "/v1/chat/completions"


def body_of(prompt: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": prompt}]}]
    config = {"aspect_ratio": "1:1", "image_size": "1K"}
    return {"messages": messages, "modalities": ["image", "text"], "image_config": config, **fields}


async def complete(client: Client, prompt: str, **fields: Any) -> dict[str, Any]:
    response = await client.post(PATH, json=body_of(prompt, **fields))
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


async def deltas(client: Client, prompt: str, **fields: Any) -> tuple[list[dict[str, Any]], bytes]:
    response = await client.post(PATH, json=body_of(prompt, stream=True, **fields))
    body = await response.read()
    lines = [line for line in body.split(b"\n") if line.startswith(b"data: {")]
    return [orjson.loads(line.removeprefix(b"data: ")) for line in lines], body


def urls_in(holder: dict[str, Any]) -> list[str]:
    content = holder.get("content")
    parts = content if isinstance(content, list) else holder.get("images", [])
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


async def test_images_are_data_urls_beside_the_text_and_differ(start: Start) -> None:
    answer = await complete(await start(), "[sample images=2 longest_edge_px=64 picture_format=webp] x")
    message = answer["choices"][0]["message"]
    assert isinstance(message["content"], str)
    first, second = urls_in(message)
    assert first != second
    for url in (first, second):
        assert url.startswith("data:image/webp;base64,")
        with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2], validate=True))) as picture:
            picture.load()
            assert (picture.format, picture.size) == ("WEBP", (64, 64))


async def test_usage_holds_tokens_and_the_bill(start: Start) -> None:
    usage = (await complete(await start(), "x"))["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["cost"] == usage["cost_details"]["upstream_inference_completions_cost"] == 0.04


@pytest.mark.parametrize("fields", [{"modalities": ["text"]}, {"modalities": None}])
async def test_without_the_modality_there_is_text_alone(start: Start, fields: dict[str, Any]) -> None:
    answer = await complete(await start(), "x", **fields)
    assert "images" not in answer["choices"][0]["message"]
    assert answer["usage"]["total_tokens"] == 12


async def test_images_may_stand_in_the_content(start: Start) -> None:
    client = await start(image_place="content", image_bytes=400)
    assert len(urls_in((await complete(client, "[sample images=2] x"))["choices"][0]["message"])) == 2
    events, _ = await deltas(client, "x")
    assert sum(len(urls_in(event["choices"][0]["delta"])) for event in events) == 1


async def test_images_may_stand_in_the_text(start: Start) -> None:
    client = await start(image_place="text", image_bytes=400)
    content = (await complete(client, "[sample images=2] x"))["choices"][0]["message"]["content"]
    assert content.count("](data:image/png;base64,") == 2
    events, _ = await deltas(client, "x")
    texts = [event["choices"][0]["delta"]["content"] for event in events]
    assert "](data:image/png;base64," in "".join(texts)
    assert not any("data:image/png;base64," in text for text in texts)


async def test_a_stream_has_text_images_usage_and_done(start: Start) -> None:
    events, body = await deltas(await start(image_bytes=400), "[sample images=2 repeats=2] x")
    urls = [url for event in events for url in urls_in(event["choices"][0]["delta"])]
    assert len(urls) == 6
    assert len(set(urls)) == 2
    assert events[-1]["usage"]["cost"] == 0.08
    assert body.endswith(b"data: [DONE]\n\n")
    assert not (await deltas(await start(end_after_events=1), "x"))[1].endswith(b"[DONE]\n\n")
    assert "error" in (await deltas(await start(error_after_events=1, image_bytes=4), "x"))[0][-1]


async def test_errors_are_openrouters(start: Start) -> None:
    client = await start()
    bodies: tuple[dict[str, Any], ...] = (
        body_of("[sample status=402] x"),
        body_of("[sample colour=red] x"),
        {"messages": []},
    )
    for body in bodies:
        response = await client.post(PATH, json=body)
        assert (await response.json())["error"]["code"] == response.status
