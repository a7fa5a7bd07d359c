"""What each deviation makes of each dialect's answers."""

from __future__ import annotations

import zlib
from typing import Any

import orjson
import pytest

from proxy.sample_provider.behaviour import Behaviour, UnknownBehaviour, parse_overrides
from proxy.sample_provider.deviations import (
    DEVIATIONS,
    deviating_answer,
    deviating_events,
    deviating_headers,
    encoded,
)
from proxy.sample_provider.dialects import registry as dialects
from proxy.sample_provider.dialects.registry import Dialect, stream_of
from proxy.sample_provider.dialects.wire import Order

IMAGE = b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"
ORDER = Order("a cube", 2, 64, 64, as_base64=True)
DIALECTS = {"openai": dialects.GENERATIONS, "chat": dialects.CHAT, "gemini": dialects.GEMINI}


def whole(dialect: Dialect, *names: str, images: int = 2) -> bytes:
    order = Order("a cube", images, 64, 64, as_base64=True)
    return b"".join(deviating_answer(dialect.answer(order, Behaviour(), IMAGE, 7), names))


def document(dialect: Dialect, *names: str, images: int = 2) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(whole(dialect, *names, images=images))
    return found


def stream(dialect: Dialect, *names: str, images: int = 2) -> list[bytes]:
    order = Order("a cube", images, 64, 64, as_base64=True, stream=True, partial_images=1)
    return [b"".join(event) for event in stream_of(dialect, order, Behaviour(deviate=names), IMAGE, 7)]


def data_of(event: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(event.partition(b"data: ")[2])
    return found


def test_openais_images_stand_in_another_member() -> None:
    found = document(dialects.GENERATIONS, "images-member")
    assert "data" not in found
    assert [entry["b64_json"][:4] for entry in found["images"]] == ["iVBO", "iVBO"]


def test_base64_stands_where_an_address_should() -> None:
    entries = document(dialects.GENERATIONS, "bare-base64")["data"]
    assert [sorted(entry) for entry in entries] == [["revised_prompt", "url"]] * 2
    assert entries[0]["url"] == IMAGE.decode()
    said = document(dialects.CHAT, "bare-base64")["choices"][0]["message"]
    assert said["images"][0]["image_url"]["url"] == IMAGE.decode()


def test_a_data_address_stands_where_base64_should() -> None:
    address = f"data:image/png;base64,{IMAGE.decode()}"
    assert document(dialects.GENERATIONS, "data-address")["data"][0]["b64_json"] == address
    assert document(dialects.CHAT, "data-address")["choices"][0]["message"]["images"][0] == address
    parts = document(dialects.GEMINI, "data-address")["candidates"][0]["content"]["parts"]
    assert next(part["inlineData"]["data"] for part in parts if "inlineData" in part) == address
    assert data_of(stream(dialects.GENERATIONS, "data-address")[1])["b64_json"] == address


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_each_image_comes_twice(dialect: Dialect) -> None:
    assert whole(dialect, "duplicate").count(IMAGE) == 4
    partial_images = 2 if dialect is dialects.GENERATIONS else 0
    assert b"".join(stream(dialect, "duplicate")).count(IMAGE) == 4 + partial_images


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_an_answer_breaks_off_in_the_second_image(dialect: Dialect) -> None:
    plain = whole(dialect)
    cut = whole(dialect, "cut")
    assert plain.startswith(cut)
    assert (cut.count(IMAGE), cut.count(IMAGE[:4])) == (1, 2)
    assert whole(dialect, "cut", images=1) == whole(dialect, images=1)
    events = stream(dialect, "cut")
    assert IMAGE[:4] in events[-1]
    assert IMAGE not in events[-1]


def test_words_and_gaps_where_numbers_are_due() -> None:
    assert isinstance(document(dialects.GENERATIONS, "created-as-text")["created"], str)
    assert isinstance(document(dialects.CHAT, "created-as-text")["created"], str)
    assert isinstance(data_of(stream(dialects.GENERATIONS, "created-as-text")[0])["created_at"], str)
    assert "created" not in document(dialects.CHAT, "no-created")
    assert "created_at" not in data_of(stream(dialects.GENERATIONS, "no-created")[0])
    assert "total_tokens" not in document(dialects.GENERATIONS, "usage-without-total")["usage"]
    assert "totalTokenCount" not in document(dialects.GEMINI, "usage-without-total")["usageMetadata"]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_an_error_comes_after_the_finished_images(dialect: Dialect) -> None:
    events = stream(dialect, "late-error")
    plain = stream(dialect)
    if dialect is dialects.CHAT:
        assert (events.pop(), plain.pop()) == (b"data: [DONE]\n\n", b"data: [DONE]\n\n")
    assert [data_of(event) for event in events[:-1]] == [data_of(event) for event in plain]
    assert "error" in data_of(events[-1])


def test_a_text_comes_in_the_images_place() -> None:
    assert document(dialects.GENERATIONS, "no-image", images=0)["text"]
    (event,) = stream(dialects.GENERATIONS, "no-image", images=0)
    assert data_of(event)["text"]


def test_headers() -> None:
    json = {"Content-Type": "application/json"}
    assert deviating_headers(json, ["wrong-content-type"]) == {"Content-Type": "text/event-stream"}
    events = {"Content-Type": "text/event-stream; charset=utf-8"}
    assert deviating_headers(events, ["wrong-content-type"]) == {"Content-Type": "application/json"}
    assert deviating_headers(json, ["no-content-type"]) == {"Content-Type": ""}
    assert deviating_headers(json, ["gzip"])["Content-Encoding"] == "gzip"
    many = deviating_headers(json, ["large-headers"])
    assert len(many) == 201
    assert 48 * 1024 < sum(len(name) + len(value) + 4 for name, value in many.items()) < 64 * 1024


def test_bytes() -> None:
    assert list(encoded([[b"a", b"b"], [b"c"]], ["byte-order-mark"])) == [[b"\xef\xbb\xbfab"], [b"c"]]
    unpacking = zlib.decompressobj(wbits=31)
    groups = [b"".join(group) for group in encoded([[b"a", b"b"], [b"c"]], ["gzip"])]
    assert [unpacking.decompress(group) for group in groups] == [b"ab", b"c", b""]
    assert unpacking.eof
    assert len(list(encoded([[b"a"]], ["gzip", "cut"]))) == 1


def test_a_request_names_its_deviations() -> None:
    assert parse_overrides("deviate=gzip,cut images=2") == {"deviate": ("gzip", "cut"), "images": 2}
    assert parse_overrides("images=2,deviate=gzip") == {"deviate": ("gzip",), "images": 2}
    assert parse_overrides("deviate=gzip deviate=cut") == {"deviate": ("cut",)}
    with pytest.raises(UnknownBehaviour, match="deviate must be of wrong-content-type, "):
        parse_overrides("deviate=zip")
    with pytest.raises(UnknownBehaviour, match="'cut'"):
        parse_overrides("cut")


@pytest.mark.parametrize("name", DEVIATIONS)
@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_every_answer_can_deviate_in_every_way(dialect: Dialect, name: str) -> None:
    assert deviating_answer(dialect.answer(ORDER, Behaviour(), IMAGE, 7), [name])
    plain = dialect.events(ORDER, Behaviour(), IMAGE, 7)
    assert list(deviating_events(plain, [name], dialect.error_event))
