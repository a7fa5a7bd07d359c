"""Each way to ask, at a provider of each dialect, over sockets: what that is sent, what the client gets and pays."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import openai
import pytest

from tests.domain.answer_samples import events_of
from tests.support.forms import FORM, PNG, form_of
from tests.support.gateways import (
    ALL_PARAMETERS,
    Answer,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
    running_gateway,
    sample_provider,
)

IMAGES = "/v1/images/generations"
EDITS = "/v1/images/edits"
VARIATIONS = "/v1/images/variations"
CHAT = "/v1/chat/completions"
GEMINI = "/v1beta/models/image-1"
OPENROUTER = "/v1/images"
BY_CHAT = {"model": "acme/by-chat"}
CONFIG = {"aspect_ratio": "1:1", "image_size": "1K"}
TALK = {"messages": [{"role": "user", "content": "a cube"}], "modalities": ["image", "text"]}
OTHER_FORM = [{"role": "user", "content": "[sample other_form] a cube"}]
MARKDOWN = [{"role": "user", "content": "[sample image_place=text] a cube"}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
PART = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "a cube"},
    {"role": "assistant", "content": "here", "images": [PICTURE]},
    {"role": "user", "content": [{"type": "text", "text": "[sample images=2] now blue"}, PICTURE]},
]


INLINE = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{INLINE}"
ALSO = b"\xff\xd8\xff" + b"another" * 40_000
ALSO_INLINE = base64.b64encode(ALSO).decode()


@dataclass(frozen=True)
class Row:
    """A request, where and with what it reaches the provider, and what it comes to.

    With ``files`` it is a form; ``parts`` are those of the form that the provider is sent.
    """

    dialect: str
    path: str
    fields: dict[str, Any]
    sent_to: str
    sent: dict[str, Any]
    images: int = 1
    units: int = 5_000
    files: Sequence[tuple[str, bytes]] = ()
    parts: Sequence[str] = ()


FILE = [("image", PNG)]
FILES = [("image[]", PNG), ("image[]", ALSO)]
TURN = [{"type": "text", "text": "a cube"}, {"type": "image_url", "image_url": {"url": DATA_URL}}]
PARTS = [{"text": "a cube"}, {"inlineData": {"mimeType": "image/png", "data": INLINE}}]
JPEG_TURN = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{ALSO_INLINE}"}}
JPEG_PART = {"inlineData": {"mimeType": "image/jpeg", "data": ALSO_INLINE}}

ROWS = [
    Row("openai", IMAGES, {"size": "64x64"}, IMAGES, {"prompt": "a cube", "size": "64x64"}),
    Row("openai", IMAGES, {"n": 2}, IMAGES, {"n": 2}, images=2, units=10_000),
    Row("openai", IMAGES, {"stream": True, "partial_images": 1}, IMAGES, {"stream": True, "partial_images": 1}),
    Row("openai", IMAGES, {"size": "4K"}, IMAGES, {"size": "4K"}, units=12_500),
    Row("openai", CHAT, {**TALK}, CHAT, {"modalities": ["image", "text"]}),
    Row("openai", CHAT, {**TALK, "stream": True}, CHAT, {"stream_options": {"include_usage": True}}),
    Row("openai", CHAT, {**TALK, "messages": MARKDOWN}, CHAT, {"messages": MARKDOWN}),
    Row("openai", CHAT, {**TALK, "messages": MARKDOWN, "stream": True}, CHAT, {"messages": MARKDOWN}),
    Row("openrouter", IMAGES, {"size": "1024x1024", "n": 2}, OPENROUTER, {"size": "1024x1024", "n": 2}, images=2,
        units=10_000),
    Row("openrouter", IMAGES, {"stream": True, "partial_images": 1}, OPENROUTER, {"stream": True}),
    Row("openrouter", IMAGES, {"image_config": {"image_size": "4K"}}, OPENROUTER,
        {"resolution": "4K", "aspect_ratio": None, "size": None}, units=12_500),
    Row("openrouter", IMAGES, {"size": "1536x1024", "image_config": {"image_size": "2K"}}, OPENROUTER,
        {"resolution": "2K", "aspect_ratio": "3:2", "size": None}),
    Row("openrouter", IMAGES, {**BY_CHAT, "size": "1024x1024"}, CHAT,
        {"image_config": CONFIG, "modalities": ["image", "text"]}),
    Row("openrouter", IMAGES, {**BY_CHAT, "stream": True}, CHAT,
        {"messages": [{"role": "user", "content": "a cube"}]}),
    Row("openrouter", IMAGES, {**BY_CHAT, "image_config": {"image_size": "4K"}}, CHAT,
        {"image_config": {"image_size": "4K"}}, units=12_500),
    Row("openrouter", CHAT, {**TALK, "image_config": CONFIG}, CHAT, {"image_config": CONFIG}),
    Row("openrouter", CHAT, {**TALK, "stream": True}, CHAT, {"stream": True}),
    Row("gemini", IMAGES, {}, f"{GEMINI}:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "a cube"}]}]}),
    Row("gemini", IMAGES, {"size": "1024x1024"}, f"{GEMINI}:generateContent",
        {"generationConfig": {"responseModalities": ["TEXT", "IMAGE"],
                              "imageConfig": {"aspectRatio": "1:1", "imageSize": "1K"}}}),
    Row("gemini", IMAGES, {"stream": True}, f"{GEMINI}:streamGenerateContent", {}),
    Row("gemini", IMAGES, {"image_config": {"image_size": "4K"}}, f"{GEMINI}:generateContent", {}, units=12_500),
    Row("openai", EDITS, {}, EDITS, {}, files=FILE, parts=["model", "prompt", "image"]),
    Row("openai", EDITS, {"n": "2", "size": "4K"}, EDITS, {}, images=2, units=25_000, files=[*FILES, ("mask", PNG)],
        parts=["model", "prompt", "n", "size", "image[]", "image[]", "mask"]),
    Row("openai", EDITS, {"stream": "true", "partial_images": "1"}, EDITS, {}, files=FILE,
        parts=["model", "prompt", "stream", "partial_images", "image"]),
    Row("openai", EDITS, {"image_config[image_size]": "4K"}, EDITS, {}, units=12_500, files=FILE,
        parts=["model", "prompt", "image_config", "image"]),
    Row("openai", EDITS, {"images": [{"image_url": DATA_URL}], "mask": {"file_id": "f"}, "n": 2}, EDITS,
        {"images": [{"image_url": DATA_URL}], "mask": {"file_id": "f"}, "n": 2}, images=2, units=10_000),
    Row("openai", EDITS, {"images": [{"file_id": "f"}], "stream": True}, EDITS, {"stream": True}),
    Row("openai", VARIATIONS, {"n": "2"}, VARIATIONS, {}, images=2, units=10_000, files=FILE,
        parts=["model", "n", "image"]),
    Row("openrouter", EDITS, {"size": "1024x1024"}, OPENROUTER, {"input_references": TURN[1:], "size": "1024x1024"},
        files=FILE),
    Row("openrouter", EDITS, {"images": [{"image_url": DATA_URL}]}, OPENROUTER, {"input_references": TURN[1:]}),
    Row("openrouter", EDITS, {**BY_CHAT, "size": "1024x1024"}, CHAT, {"messages": [{"role": "user", "content": TURN}],
        "image_config": CONFIG}, files=FILE),
    Row("openrouter", EDITS, {**BY_CHAT, "stream": "true"}, CHAT,
        {"messages": [{"role": "user", "content": [*TURN, JPEG_TURN]}]}, files=FILES),
    Row("openrouter", EDITS, {**BY_CHAT, "images": [{"image_url": DATA_URL}]}, CHAT,
        {"messages": [{"role": "user", "content": TURN}]}),
    Row("gemini", EDITS, {"image_config": '{"image_size":"4K"}'}, f"{GEMINI}:generateContent",
        {"contents": [{"role": "user", "parts": PARTS}]}, units=12_500, files=FILE),
    Row("gemini", EDITS, {"stream": "true"}, f"{GEMINI}:streamGenerateContent",
        {"contents": [{"role": "user", "parts": [*PARTS, JPEG_PART]}]}, files=FILES),
    Row("gemini", EDITS, {"images": [{"image_url": DATA_URL}]}, f"{GEMINI}:generateContent",
        {"contents": [{"role": "user", "parts": PARTS}]}),
    Row("gemini", CHAT, {**TALK, "image_config": CONFIG}, f"{GEMINI}:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "a cube"}]}],
         "generationConfig": {"responseModalities": ["IMAGE", "TEXT"],
                              "imageConfig": {"aspectRatio": "1:1", "imageSize": "1K"}}}),
    Row("gemini", CHAT, {**TALK, "messages": TURNS, "image_config": {"image_size": "4K"}}, f"{GEMINI}:generateContent",
        {"systemInstruction": {"parts": [{"text": "Be brief."}]},
         "contents": [{"role": "user", "parts": [{"text": "a cube"}]},
                      {"role": "model", "parts": [{"text": "here"}, PART]},
                      {"role": "user", "parts": [{"text": "[sample images=2] now blue"}, PART]}]},
        images=2, units=25_000),
    Row("gemini", CHAT, {**TALK, "messages": OTHER_FORM}, f"{GEMINI}:generateContent", {}),
    Row("gemini", CHAT, {**TALK, "messages": OTHER_FORM, "stream": True}, f"{GEMINI}:streamGenerateContent", {}),
    Row("openrouter", CHAT, {**TALK, "messages": OTHER_FORM}, CHAT, {"messages": OTHER_FORM}),
    Row("openrouter", CHAT, {**TALK, "messages": OTHER_FORM, "stream": True}, CHAT, {"stream": True}),
    Row("gemini", CHAT, {**TALK, "stream": True, "temperature": 0.5}, f"{GEMINI}:streamGenerateContent",
        {"generationConfig": {"responseModalities": ["IMAGE", "TEXT"], "temperature": 0.5}}),
]  # fmt: skip


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[RunningGateway, SampleProvider]]]:
    """A gateway for each dialect, all at one provider."""
    folder = tmp_path_factory.mktemp("every")
    model = image_model(parameters=[*ALL_PARAMETERS, "stream", "partial_images"])
    with sample_provider(folder, "--answer", "b64_json") as provider:
        by_chat = {**model, "id": "acme/by-chat", "endpoint": "chat"}
        bases = {"openai": "v1", "openrouter": "v1", "gemini": "v1beta"}
        tomls = {
            dialect: configuration(
                f"embedded:{folder}/{dialect}/data",
                provider.url,
                models=[model, *([by_chat] if dialect == "openrouter" else [])],
                provider={"dialect": dialect, "base_url": f"{provider.url}/{base}"},
            )
            for dialect, base in bases.items()
        }
        with (
            running_gateway(folder / "openai", tomls["openai"]) as openai,
            running_gateway(folder / "openrouter", tomls["openrouter"]) as openrouter,
            running_gateway(folder / "gemini", tomls["gemini"]) as gemini,
        ):
            yield {"openai": (openai, provider), "openrouter": (openrouter, provider), "gemini": (gemini, provider)}


Every = dict[str, tuple[RunningGateway, SampleProvider]]


def payloads(body: bytes, document: Any) -> list[str]:
    """The images in an answer, whatever its form."""
    documents = list(events_of(body)) if document is None else [document]
    found, text = [], ""
    for one in documents:
        if one.get("type") in ("image_generation.completed", "image_edit.completed"):
            found.append(one["b64_json"])
        found += [image["b64_json"] for image in one.get("data", [])]
        for choice in one.get("choices", []):
            message = choice.get("message") or choice["delta"]
            found += [image["image_url"]["url"].partition("base64,")[2] for image in message.get("images", [])]
            text += message.get("content") or ""
    return found + re.findall(r"!\[[^]]*\]\(data:image/png;base64,([^)]+)\)", text)


def sent_by(row: Row, gateway: RunningGateway, key: str) -> Answer:
    fields: dict[str, Any] = {"model": "acme/image-1", **row.fields}
    if row.path in (IMAGES, EDITS):
        fields["prompt"] = "a cube"
    url = gateway.url + row.path
    if not row.files:
        return ask("POST", url, key=key, body=fields)
    # The files first: what is metered may stand anywhere.
    return ask("POST", url, key=key, body=form_of([*row.files, *fields.items()]), headers={"Content-Type": FORM})


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.dialect} {row.path} {list(row.fields)}" for row in ROWS])
def test_it_is_asked_answered_and_charged(every: Every, row: Row) -> None:
    gateway, provider = every[row.dialect]
    key = gateway.make_key()
    provider.clear()
    answer = sent_by(row, gateway, key)
    assert answer.status == 200, answer.body
    [received] = provider.requests()
    assert received["path"] == row.sent_to
    assert {name: received["body"].get(name) for name in row.sent} == row.sent
    check_parts(received.get("parts", []), row)
    streamed = row.fields.get("stream", False)
    assert answer.headers["Content-Type"] == ("text/event-stream" if streamed else "application/json")
    if streamed and row.path == EDITS:
        assert {event["type"].partition(".")[0] for event in events_of(answer.body)} == {"image_edit"}
    pictures = payloads(answer.body, None if streamed else answer.json)
    assert [base64.b64decode(picture)[:4] for picture in pictures] == [b"\x89PNG"] * row.images
    assert b"cost" not in answer.body
    gateway.check_books(key)
    [entry] = gateway.ledger(key)
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("delivered", row.images, row.units)
    assert entry["provider_usage"]


def check_parts(parts: list[dict[str, Any]], row: Row) -> None:
    """A form's parts, in the order in which they are sent on; the files are the same to the byte."""
    assert [part["name"] for part in parts] == list(row.parts)
    hashes = [(part["sha256"], part["size_bytes"]) for part in parts if part["filename"] is not None]
    if row.parts:
        assert hashes == [(sha256(data).hexdigest(), len(data)) for _, data in row.files]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "code"),
    [("finish_reason=IMAGE_SAFETY", "image_safety"), ("block_reason=PROHIBITED_CONTENT", "prohibited_content")],
)
def test_what_gemini_blocks_is_empty_and_says_why(every: Every, behaviour: str, code: str, *, stream: bool) -> None:
    gateway, _ = every["gemini"]
    key = gateway.make_key()
    answer = gateway.generate(key, prompt=f"[sample {behaviour}] x", stream=stream)
    assert (answer.status, answer.json["error"]["code"]) == (400, code)
    [entry] = gateway.ledger(key)
    assert (entry["outcome"], entry["charged"]) == ("empty", 0)


def test_geminis_thoughts_are_not_charged(every: Every) -> None:
    gateway, _ = every["gemini"]
    key = gateway.make_key()
    assert gateway.generate(key, prompt="[sample thoughts=2] x").status == 200
    assert gateway.quota(key)["posted"] == 5_000


@pytest.mark.parametrize("dialect", ["openrouter", "gemini"])
@pytest.mark.parametrize(("status", "seen"), [(400, 400), (401, 502), (429, 429), (500, 502), (503, 502)])
def test_errors_of_every_dialect(every: Every, dialect: str, status: int, seen: int) -> None:
    gateway, _ = every[dialect]
    key = gateway.make_key()
    answer = gateway.generate(key, prompt=f"[sample status={status}] x")
    assert (answer.status, gateway.quota(key)["posted"]) == (seen, 0)


def test_where_one_image_is_made_a_request_two_are_two_requests(every: Every) -> None:
    gateway, provider = every["gemini"]
    provider.clear()
    key = gateway.make_key()
    assert gateway.generate(key, n=2).status == 200
    assert len(provider.requests()) == 2
    gateway.check_books(key)


def chat(gateway: RunningGateway, key: str, text: str, **fields: Any) -> Answer:
    messages = [{"role": "user", "content": text}]
    body = {"model": "acme/image-1", "messages": messages, "modalities": ["image", "text"], **fields}
    return ask("POST", gateway.url + CHAT, key=key, body=body)


def test_openais_own_client_chats_with_gemini(every: Every) -> None:
    gateway, _ = every["gemini"]
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.make_key()) as client:
        asked: dict[str, Any] = {"model": "acme/image-1", **TALK}
        whole = client.chat.completions.create(**asked)
        assert whole.choices[0].message.content
        assert len(whole.choices[0].message.model_dump()["images"]) == 1
        assert (whole.choices[0].finish_reason, whole.usage is not None) == ("stop", True)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        assert {chunk.id for chunk in chunks} == {chunks[0].id}
        assert sum("images" in choice.delta.model_dump() for chunk in chunks for choice in chunk.choices) == 1
        assert chunks[-1].usage is not None


@pytest.mark.parametrize("stream", [False, True])
def test_text_from_gemini_costs_its_tokens(every: Every, *, stream: bool) -> None:
    gateway, _ = every["gemini"]
    key = gateway.make_key()
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    answer = chat(gateway, key, "a poem", modalities=["text"], stream=stream, **options)
    documents = list(events_of(answer.body)) if stream else [answer.json]
    usage = documents[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    [entry] = gateway.ledger(key)
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("delivered", 0, usage["total_tokens"])
    assert entry["provider_usage"]["totalTokenCount"] == usage["total_tokens"]
    gateway.check_books(key)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("behaviour", ["finish_reason=IMAGE_SAFETY", "block_reason=PROHIBITED_CONTENT"])
def test_a_chat_that_gemini_withholds_says_so_as_chats_do(every: Every, behaviour: str, *, stream: bool) -> None:
    gateway, _ = every["gemini"]
    key = gateway.make_key()
    answer = chat(gateway, key, f"[sample {behaviour}] x", stream=stream)
    choice = (list(events_of(answer.body))[-1] if stream else answer.json)["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    assert "made no answer" in (choice["delta"] if stream else choice["message"])["refusal"]
    assert gateway.ledger(key)[-1]["images"] == 0


@pytest.mark.parametrize(
    ("behaviour", "status", "outcome", "images"),
    [
        ("error_after_events=2", 200, "truncated", 1),
        ("end_after_events=2", 200, "truncated", 1),
        ("error_after_events=1", 200, "failed", 0),
        ("thoughts=2", 200, "delivered", 1),
        ("status=429", 429, "refused", 0),
        ("status=401", 502, "failed", 0),
    ],
)
def test_chats_with_gemini_that_fail(every: Every, behaviour: str, status: int, outcome: str, images: int) -> None:
    gateway, _ = every["gemini"]
    key = gateway.make_key()
    answer = chat(gateway, key, f"[sample {behaviour}] x", stream=True)
    assert answer.status == status
    [entry] = gateway.ledger(key)
    assert (entry["outcome"], entry["images"], entry["charged"]) == (outcome, images, images * 5_000)
    gateway.check_books(key)


def test_what_gemini_has_no_words_for_is_refused_before_it_costs_anything(every: Every) -> None:
    gateway, provider = every["gemini"]
    key = gateway.make_key(requests_per_minute=1)
    provider.clear()
    for fields, param in (
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages"),
    ):
        refused = chat(gateway, key, "x", **fields)
        assert (refused.status, refused.json["error"]["param"]) == (400, param)
    assert (provider.requests(), gateway.ledger(key)) == ([], [])
    assert chat(gateway, key, "x").status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_thirty_megabytes_of_a_chat_with_gemini_are_not_held(every: Every, *, stream: bool) -> None:
    gateway, _ = every["gemini"]
    key = gateway.make_key()
    text = "[sample image_bytes=30000000] x"
    chat(gateway, key, text, stream=stream)
    before = gateway.memory_bytes()
    assert len(chat(gateway, key, text, stream=stream).body) > 30_000_000
    assert gateway.memory_bytes() - before < 4_000_000


@pytest.mark.parametrize("dialect", ["openrouter", "gemini"])
def test_thirty_megabytes_are_translated_without_being_held(every: Every, dialect: str) -> None:
    gateway, _ = every[dialect]
    key = gateway.make_key()
    gateway.generate(key, prompt="[sample image_bytes=30000000] x")
    before = gateway.memory_bytes()
    answer = gateway.generate(key, prompt="[sample image_bytes=30000000] x")
    assert len(answer.json["data"][0]["b64_json"]) >= 30_000_000
    assert gateway.memory_bytes() - before < 4_000_000
