from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from proxy.domain.errors import InvalidRequest
from proxy.domain.requests.chat import IMAGE_TOKENS, ChatRequest, parse_chat_request
from tests.support.forms import PNG

JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(range(30))).decode()
DRAWN = base64.b64encode(PNG).decode()
WEBP = base64.b64encode(b"RIFF\x00\x01\x02\x03WEBPVP8 ").decode()
LINK = "https://a.example/cat.png"
UNKNOWN = base64.b64encode(b"nothing that is known").decode()


def parse(*parts: Any, name: str = "content") -> ChatRequest:
    return parse_chat_request(orjson.dumps({"messages": [{"role": "user", name: list(parts)}]}))


def read(part: Any, name: str = "content") -> Any:
    [message] = parse(part, name=name).fields["messages"]
    [read_part] = message[name]
    return read_part


def picture(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


FORMS: list[tuple[dict[str, Any], str]] = [
    ({"type": "image_url", "image_url": f"data:image/png;base64,{DRAWN}"}, f"data:image/png;base64,{DRAWN}"),
    ({"type": "image_url", "image_url": {"url": DRAWN}}, f"data:image/png;base64,{DRAWN}"),
    (
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": JPEG}},
        f"data:image/jpeg;base64,{JPEG}",
    ),
    (
        {"type": "image", "source": {"type": "base64", "media_type": "image/heic", "data": UNKNOWN}},
        f"data:image/heic;base64,{UNKNOWN}",
    ),
    ({"type": "image", "source": {"type": "url", "url": LINK}}, LINK),
    ({"type": "input_image", "image_url": LINK}, LINK),
    ({"type": "input_image", "image_url": f"data:image/jpg;base64,{UNKNOWN}"}, f"data:image/jpeg;base64,{UNKNOWN}"),
    ({"type": "image", "image": f"data:image/png;base64,{DRAWN}"}, f"data:image/png;base64,{DRAWN}"),
    ({"type": "image", "image": DRAWN, "mediaType": "image/*"}, f"data:image/png;base64,{DRAWN}"),
    ({"type": "image", "image": LINK}, LINK),
    ({"type": "image", "data": WEBP, "mimeType": "image/png"}, f"data:image/webp;base64,{WEBP}"),
    ({"type": "image", "base64": DRAWN, "mime_type": "image/png"}, f"data:image/png;base64,{DRAWN}"),
    ({"type": "image", "source_type": "url", "url": LINK}, LINK),
    ({"type": "media", "mime_type": "image/png", "data": DRAWN}, f"data:image/png;base64,{DRAWN}"),
    ({"inlineData": {"mimeType": "image/png", "data": DRAWN}}, f"data:image/png;base64,{DRAWN}"),
    ({"inline_data": {"mime_type": "image/png", "data": DRAWN}}, f"data:image/png;base64,{DRAWN}"),
    ({"fileData": {"mimeType": "image/png", "fileUri": LINK}}, LINK),
    ({"image_url": {"url": LINK}}, LINK),
    (
        {"type": "file", "file": {"filename": "a.png", "file_data": f"data:image/png;base64,{DRAWN}"}},
        f"data:image/png;base64,{DRAWN}",
    ),
]


@pytest.mark.parametrize("name", ["content", "images"])
@pytest.mark.parametrize(("part", "url"), FORMS, ids=lambda value: str(value)[:60])
def test_an_image_is_read_in_the_form_of_each_library(part: dict[str, Any], url: str, name: str) -> None:
    assert read(part, name) == picture(url)
    asked = parse(part, name=name)
    assert asked.links is (url == LINK)
    assert IMAGE_TOKENS < asked.prompt_tokens < IMAGE_TOKENS + 300


def test_what_stands_beside_an_image_stays() -> None:
    extra = {"google": {"thought_signature": "s"}}
    part = {"type": "input_image", "image_url": LINK, "detail": "low", "cache_control": {"type": "ephemeral"}}
    assert read(part) == {**picture(LINK, detail="low"), "cache_control": {"type": "ephemeral"}}
    drawn = {**picture(LINK, detail="high"), "index": 1, "extra_content": extra}
    assert read(drawn, "images") == drawn


@pytest.mark.parametrize("kind", ["input_text", "output_text", None])
def test_text_is_text_by_each_name(kind: str | None) -> None:
    assert read({"type": kind, "text": "hi", "cache_control": {}}) == {
        "type": "text",
        "text": "hi",
        "cache_control": {},
    }


@pytest.mark.parametrize(
    "part",
    [
        "text", 1, {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "text", "text": DRAWN},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}, {"type": "image"},
        {"type": "file", "file": {"file_id": "f"}}, {"type": "input_image", "file_id": "f"}, {"functionCall": {}},
        {"type": "image", "source": {"type": "base64", "media_type": "application/pdf", "data": UNKNOWN}},
        {"type": ["image"], "image": LINK}, {"type": "media", "mime_type": "video/mp4", "data": UNKNOWN},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_image_stays_as_it_is(part: Any) -> None:
    assert read(part) == part


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/"}},
        {"type": "input_image", "image_url": "https://localhost/x"},
        {"fileData": {"fileUri": "gs://bucket/cat.png"}},
        {"type": "image", "image": "cat.png"},
        {"type": "image", "url": ""},
    ],
)
def test_an_address_is_public_in_each_form(part: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"messages\[0\]\.content\[0\]\.image_url' should") as refused:
        parse(part)
    assert refused.value.param == "messages"
