"""What each dialect's answers become, however they are cut, and what its refusals mean."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from proxy.domain.answers.answer import Answer
from proxy.domain.errors import (
    NothingGenerated,
    ProviderOutOfCredit,
    ProviderRefusal,
    ProxyError,
    UpstreamError,
    UpstreamMisconfigured,
)
from proxy.domain.requests.image import ImageRequest, parse_image_request
from proxy.upstream.dialects import DIALECTS
from tests.domain.answer_samples import Passed, check_that_thirty_megabytes_flow, events_of, pass_on, passed_however_cut
from tests.domain.answers.images.samples import COMPLETED, CREATED_S, make
from tests.domain.samples import make_model, written

DATA_URL = "data:image/png;base64,"
USAGE = {"totalTokenCount": 7}


def inline(data: str = "AAAA", **more: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": "image/png", "data": data}, **more}


def gemini(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": "STOP"}], **more}


def openrouter(message: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "1", "choices": [{"message": message, "finish_reason": "stop"}], **more}


def picture(data: str = "AAAA") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": DATA_URL + data}}


def sse(*documents: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\r\n\r\n" % orjson.dumps(document) for document in documents)


def asked(**fields: Any) -> ImageRequest:
    return parse_image_request(orjson.dumps({"prompt": "a cube", **fields}))


def answer_of(dialect: str, *, events: bool = False, stream: bool = False) -> Answer:
    return make(events=events, stream=stream, reading=DIALECTS[dialect].reading)


def read(dialect: str, body: bytes, *, events: bool = False, stream: bool = False) -> Passed:
    return passed_however_cut(lambda: answer_of(dialect, events=events, stream=stream), body)


def read_whole(answer: Answer, body: bytes) -> None:
    answer.feed(body)
    answer.finish()


ONE = [{"b64_json": "AAAA", "media_type": "image/png"}]
ROWS: list[tuple[str, str, bytes, bool, list[dict[str, str]]]] = [
    ("one image", "gemini", orjson.dumps(gemini(inline(), usageMetadata=USAGE)), False, ONE),
    ("one image, indented", "gemini", json.dumps(gemini(inline()), indent=2).encode(), False, ONE),
    ("snake case", "gemini", orjson.dumps(gemini({"inline_data": {"data": "AAAA", "mime_type": "image/png"}})), False,
     ONE),
    ("with text", "gemini", orjson.dumps(gemini({"text": "here"}, inline())), False, ONE),
    ("after a thought", "gemini", orjson.dumps(gemini({"thought": True, **inline("T")}, inline())), False, ONE),
    ("a stream", "gemini", sse(gemini({"text": "x"}), gemini(inline()), gemini({"text": ""})), True, ONE),
    ("an array of a stream's documents", "gemini", orjson.dumps([gemini({"text": "x"}), gemini(inline())]), False, ONE),
    ("as Imagen has it", "gemini",
     orjson.dumps({"predictions": [{"bytesBase64Encoded": "AAAA", "mimeType": "image/png"}]}), False, ONE),
    ("as OpenAI has it", "gemini", orjson.dumps({"data": [{"url": DATA_URL + "AAAA"}]}), False, ONE),
    ("one image", "openrouter", orjson.dumps(openrouter({"content": "x", "images": [picture()]})), False, ONE),
    ("in the content", "openrouter", orjson.dumps(openrouter({"content": [{"type": "text"}, picture()]})), False, ONE),
    ("an address", "openrouter", orjson.dumps(openrouter({"images": [{"image_url": {"url": "https://a.example/"}}]})),
     False, [{"url": "https://a.example/"}]),
    ("in the text", "openrouter", orjson.dumps(openrouter({"content": f"![a]({DATA_URL}AAAA)"})), False, ONE),
    ("in two places", "openrouter",
     orjson.dumps(openrouter({"content": f"![a]({DATA_URL}AAAA)", "images": [picture()]})), False, ONE),
    ("a stream that repeats", "openrouter",
     sse(openrouter({"images": [picture()]}), openrouter({"images": [picture()]})), True, ONE),
    ("one image", "openai", orjson.dumps({"created": CREATED_S, "data": [{"url": "https://a.example/"}]}), False,
     [{"url": "https://a.example/"}]),
    ("a data: address", "openai", orjson.dumps({"data": [{"url": DATA_URL + "AAAA"}]}), False, ONE),
    ("as Gemini has it", "openai", orjson.dumps(gemini(inline())), False, ONE),
    ("a chat", "openai", orjson.dumps(openrouter({"images": [picture()]})), False, ONE),
    ("events", "openai", sse({"type": "image_generation.completed", "b64_json": DATA_URL + "AAAA"}), True, ONE),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("dialect", "body", "events", "images"), [row[1:] for row in ROWS], ids=[f"{row[1]}: {row[0]}" for row in ROWS]
)
def test_answers_become_openais(
    dialect: str, body: bytes, images: list[dict[str, str]], *, events: bool, stream: bool
) -> None:
    seen = read(dialect, body, events=events, stream=stream)
    assert (seen.images, seen.whole, seen.error) == (len(images), True, None)
    if stream:
        assert list(events_of(seen.output)) == [{**COMPLETED, **image} for image in images]
    else:
        assert orjson.loads(seen.output) == {"created": CREATED_S, "data": images}


def test_usage_is_kept_for_the_ledger() -> None:
    assert orjson.loads(read("gemini", orjson.dumps(gemini(inline(), usageMetadata=USAGE))).usage or b"") == USAGE
    cost = {"total_tokens": 7, "cost": 0.04}
    assert orjson.loads(read("openrouter", orjson.dumps(openrouter({}, usage=cost))).usage or b"") == cost


def test_a_thought_that_says_so_after_its_image_is_neither_delivered_nor_charged() -> None:
    seen = read("gemini", orjson.dumps(gemini(inline("T", thought=True), inline())))
    assert (seen.images, orjson.loads(seen.output)["data"]) == (1, ONE)


@pytest.mark.parametrize(
    ("dialect", "document", "code"),
    [
        ("gemini", {"candidates": [{"finishReason": "IMAGE_SAFETY", "finishMessage": "unsafe"}]}, "image_safety"),
        ("gemini", {"candidates": [{"finishReason": "PROHIBITED_CONTENT"}]}, "prohibited_content"),
        ("gemini", {"promptFeedback": {"blockReason": "SAFETY"}}, "safety"),
        ("openrouter", {"choices": [{"message": {}, "finish_reason": "content_filter"}]}, "content_filter"),
        ("openai", {"choices": [{"message": {}, "finish_reason": "content_filter"}]}, "content_filter"),
    ],
)
def test_what_was_blocked_says_why(dialect: str, document: dict[str, Any], code: str) -> None:
    answer = answer_of(dialect)
    answer.feed(orjson.dumps(document))
    with pytest.raises(NothingGenerated) as blocked:
        answer.finish()
    assert (blocked.value.wire_status, blocked.value.wire_code) == (400, code)
    assert (read(dialect, orjson.dumps(document)).error or "").startswith("The provider made no image: ")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("document", [gemini({"text": "no way"}), openrouter({"content": "no way"})])
def test_what_was_said_instead_of_an_image_is_told(dialect: str, document: dict[str, Any], *, stream: bool) -> None:
    body = orjson.dumps(document)
    assert read(dialect, body, stream=stream).error == "The provider made no image. no way"


@pytest.mark.parametrize(
    ("dialect", "error", "kind"),
    [
        ("gemini", {"code": 500, "message": "no", "status": "INTERNAL"}, UpstreamError),
        ("openrouter", {"code": 502, "message": "no"}, UpstreamError),
        ("openrouter", {"code": 400, "message": "no"}, ProviderRefusal),
        ("openrouter", {"code": "server_error", "message": "no"}, UpstreamError),
    ],
)
def test_errors_in_a_2xx(dialect: str, error: dict[str, Any], kind: type[ProxyError]) -> None:
    for stream in (False, True):
        answer = answer_of(dialect, stream=stream)
        with pytest.raises(kind):
            read_whole(answer, orjson.dumps({"error": error}))


@pytest.mark.parametrize(
    ("dialect", "status", "error", "kind"),
    [
        ("gemini", 400, {"message": "bad size", "status": "INVALID_ARGUMENT"}, ProviderRefusal),
        ("gemini", 400, {"message": "API key not valid.", "status": "INVALID_ARGUMENT"}, UpstreamMisconfigured),
        ("gemini", 403, {"message": "no", "status": "PERMISSION_DENIED"}, UpstreamMisconfigured),
        ("openrouter", 403, {"message": "flagged", "metadata": {"reasons": ["violence"]}}, ProviderRefusal),
        ("openrouter", 403, {"message": "key limit"}, UpstreamMisconfigured),
        ("openrouter", 402, {"message": "no credits"}, ProviderOutOfCredit),
    ],
)
def test_refusals(dialect: str, status: int, error: dict[str, Any], kind: type[ProxyError]) -> None:
    assert type(DIALECTS[dialect].read_refusal(status, {}, orjson.dumps({"error": error}))) is kind
    assert DIALECTS[dialect].read_refusal(500, {}, b"[{]").wire_status == 502


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({}, None),
        ({"size": "1536x1024"}, {"aspect_ratio": "3:2", "image_size": "1K"}),
        ({"size": "4K"}, {"image_size": "4K"}),
        ({"image_config": {"aspect_ratio": "16:9"}}, {"aspect_ratio": "16:9"}),
        ({"size": "1024x1024", "image_config": {"image_size": "2K"}}, {"aspect_ratio": "1:1", "image_size": "2K"}),
        ({"quality": "high", "style": "vivid"}, None),
    ],
)
def test_sizes_are_put_in_the_providers_words(fields: dict[str, Any], config: dict[str, str] | None) -> None:
    request, model = asked(**fields), make_model(upstream_model="their-model", endpoint="chat")
    chat = written(DIALECTS["openrouter"].write_generation(request, model))
    assert chat["model"] == "their-model"
    assert (chat["messages"], chat["modalities"]) == ([{"role": "user", "content": "a cube"}], ["image", "text"])
    assert chat.get("image_config") == config
    content = written(DIALECTS["gemini"].write_generation(request, model))
    assert content["contents"] == [{"role": "user", "parts": [{"text": "a cube"}]}]
    names = {"aspect_ratio": "aspectRatio", "image_size": "imageSize"}
    expected = None if config is None else {names[name]: value for name, value in config.items()}
    assert content["generationConfig"].get("imageConfig") == expected


def test_image_config_becomes_a_size_where_a_model_lists_only_that() -> None:
    request = asked(image_config={"aspect_ratio": "16:9", "image_size": "2K"})
    dialect = DIALECTS["openai"]
    assert written(dialect.write_generation(request, make_model(parameters={"size"})))["size"] == "2752x1536"
    both = written(dialect.write_generation(request, make_model(parameters={"size", "image_config"})))
    assert "size" not in both


def test_geminis_paths_hold_the_model() -> None:
    dialect, model = DIALECTS["gemini"], make_model(upstream_model="gemini-3.1-flash-image")
    assert dialect.images_path(asked(), model) == "/models/gemini-3.1-flash-image:generateContent"
    assert dialect.images_path(asked(stream=True), model).endswith(":streamGenerateContent?alt=sse")
    tuned = make_model(upstream_model="tunedModels/a b?")
    assert dialect.images_path(asked(), tuned) == "/tunedModels/a%20b%3F:generateContent"
    assert dialect.authorize("made-up") == {"x-goog-api-key": "made-up"}
    assert dialect.authorize("") == {}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("dialect", "lead"),
    [
        ("gemini", b'{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"'),
        ("openrouter", b'{"choices":[{"message":{"images":[{"image_url":{"url":"data:image/png;base64,'),
    ],
)
def test_thirty_megabytes_flow(dialect: str, lead: bytes, *, stream: bool) -> None:
    answer = answer_of(dialect, stream=stream)
    answer.feed(lead)
    check_that_thirty_megabytes_flow(answer, held_pieces=1)
    assert pass_on(answer, [b'"}}]}}]}']).images == 1
