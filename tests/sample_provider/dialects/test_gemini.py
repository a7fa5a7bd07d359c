"""Gemini's ``generateContent``, over a socket."""

from __future__ import annotations

import base64
import io
from typing import Any

import orjson
import pytest
from PIL import Image

from tests.sample_provider.conftest import Client, Start

MODEL = "/v1beta/models/gemini-3-pro-image"
KEY = {"x-goog-api-key": "AIza-anything"}


def body_of(prompt: str, **image_config: str) -> dict[str, Any]:
    config = {"responseModalities": ["TEXT", "IMAGE"], "imageConfig": image_config}
    return {"contents": [{"role": "user", "parts": [{"text": prompt}]}], "generationConfig": config}


async def generate(client: Client, prompt: str, **image_config: str) -> dict[str, Any]:
    response = await client.post(f"{MODEL}:generateContent", json=body_of(prompt, **image_config), headers=KEY)
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


async def stream(client: Client, prompt: str) -> list[dict[str, Any]]:
    url = f"{MODEL}:streamGenerateContent?alt=sse"
    response = await client.post(url, json=body_of(prompt), headers=KEY)
    assert response.content_type == "text/event-stream"
    events = (await response.read()).split(b"\r\n\r\n")
    assert events.pop() == b""
    return [orjson.loads(event.removeprefix(b"data: ")) for event in events]


def parts_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for item in answer["candidates"] for part in item.get("content", {}).get("parts", [])]


async def test_image_config_decides_the_pixels(start: Start) -> None:
    answer = await generate(await start(), "x", aspectRatio="16:9", imageSize="1K")
    text, part = parts_of(answer)
    assert text["text"]
    assert part["inlineData"]["mimeType"] == "image/png"
    with Image.open(io.BytesIO(base64.b64decode(part["inlineData"]["data"], validate=True))) as picture:
        assert picture.size == (1024, 576)
    assert answer["candidates"][0]["finishReason"] == "STOP"
    usage = answer["usageMetadata"]
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"]
    assert usage["candidatesTokensDetails"][0]["modality"] == "IMAGE"


async def test_a_stream_ends_with_a_reason_and_usage(start: Start) -> None:
    client = await start(image_bytes=400)
    events = await stream(client, "[sample images=2 thoughts=1] x")
    parts = [part for event in events for part in parts_of(event)]
    assert sum("inlineData" in part and not part.get("thought") for part in parts) == 2
    assert sum("inlineData" in part and part.get("thought", False) for part in parts) == 1
    assert [event["candidates"][0].get("finishReason") for event in events] == [None] * 5 + ["STOP"]
    assert events[-1]["usageMetadata"]["candidatesTokenCount"] == 2123
    assert (await stream(client, "[sample error_after_events=1] x"))[-1]["error"]["code"] == 500


async def test_what_the_user_said_last_is_answered_whatever_was_said_before(start: Start) -> None:
    contents = [
        {"role": "user", "parts": [{"text": "[sample images=3] x"}]},
        {"role": "model", "parts": [{"text": "here"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]},
        {"role": "user", "parts": [{"text": "[sample images=2] once"}, {"text": "more"}]},
    ]
    body = {"systemInstruction": {"parts": [{"text": "Be brief."}]}, "contents": contents}
    response = await (await start(image_bytes=40)).post(f"{MODEL}:generateContent", json=body, headers=KEY)
    pictures = [part["inlineData"]["data"] for part in parts_of(await response.json()) if "inlineData" in part]
    assert len(set(pictures)) == 2


@pytest.mark.parametrize("reason", ["IMAGE_SAFETY", "PROHIBITED_CONTENT"])
async def test_other_reasons_come_without_an_image(start: Start, reason: str) -> None:
    client = await start(finish_reason=reason)
    for answer in (await generate(client, "x"), *await stream(client, "x")):
        assert answer["candidates"][0]["finishReason"] == reason
        assert parts_of(answer) == []


async def test_a_blocked_prompt_has_no_candidates(start: Start) -> None:
    client = await start(block_reason="SAFETY")
    for answer in (await generate(client, "x"), *await stream(client, "x")):
        assert answer["promptFeedback"] == {"blockReason": "SAFETY"}
        assert "candidates" not in answer


async def test_errors_are_googles(start: Start) -> None:
    client = await start(api_key="AIza-right")
    right = {"x-goog-api-key": "AIza-right"}
    url = f"{MODEL}:generateContent"
    for body, headers, status, word in (
        (body_of("x"), {}, 403, "PERMISSION_DENIED"),
        (body_of("x"), KEY, 400, "INVALID_ARGUMENT"),
        (body_of("[sample status=429] x"), right, 429, "RESOURCE_EXHAUSTED"),
        ({}, right, 400, "INVALID_ARGUMENT"),
        ({"contents": [{"role": "user", "parts": []}, 1]}, right, 400, "INVALID_ARGUMENT"),
        ({**body_of("x"), "systemInstruction": "x"}, right, 400, "INVALID_ARGUMENT"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, right, 400, "INVALID_ARGUMENT"),
        ({**body_of("x"), "generationConfig": {"candidateCount": 2}}, right, 400, "INVALID_ARGUMENT"),
    ):
        response = await client.post(url, json=body, headers=headers)
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["status"]) == (status, status, word)
    response = await client.post(f"{MODEL}:countTokens", json=body_of("x"), headers=right)
    assert response.status == 404
