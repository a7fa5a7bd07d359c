from __future__ import annotations

import base64
from itertools import islice
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sample_provider.behaviour import Behaviour
from proxy.sample_provider.dialects.wire import (
    Order,
    Refusal,
    base64_answer,
    cut,
    difference,
    endless_answer,
    failure_body,
    filler,
    read_order,
    url_answer,
)


def order_for(behaviour: Behaviour | None = None, **fields: Any) -> Order:
    return read_order(orjson.dumps({"prompt": "a blue cube", **fields}), "", behaviour or Behaviour())[0]


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (1024, 1024)),
        ({"size": None, "image_config": None}, (1024, 1024)),
        ({"size": "auto"}, (1024, 1024)),
        ({"size": "1536x1024"}, (1536, 1024)),
        ({"size": "16x4096"}, (16, 4096)),
        ({"size": "4K"}, (4096, 4096)),
        ({"size": "1024x1024", "image_config": {"image_size": "4K"}}, (1024, 1024)),
        ({"size": "auto", "image_config": {"image_size": "2K"}}, (2048, 2048)),
        ({"image_config": {"image_size": "1K"}}, (1024, 1024)),
        ({"image_config": {"image_size": " 4k "}}, (4096, 4096)),
        ({"image_config": {"image_size": "40K"}}, (1024, 1024)),
        ({"image_config": {"aspect_ratio": "16:9"}}, (1024, 576)),
        ({"image_config": {"aspect_ratio": "9:16", "image_size": "2K"}}, (1152, 2048)),
        ({"image_config": {"aspect_ratio": "21:9", "image_size": "4K"}}, (4096, 1755)),
        ({"image_config": {"aspect_ratio": "9999:1"}}, (1024, 16)),
        ({"image_config": {"aspect_ratio": "0:1"}}, (1024, 1024)),
        ({"image_config": {"aspect_ratio": "wide"}}, (1024, 1024)),
    ],
)
def test_sizes(fields: dict[str, Any], size: tuple[int, int]) -> None:
    order = order_for(**fields)
    assert (order.width, order.height) == size


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"{}", "prompt"),
        (b'{"prompt":""}', "prompt"),
        (b'{"prompt":["x"]}', "prompt"),
        (b'{"prompt":"x","n":0}', "n"),
        (b'{"prompt":"x","n":101}', "n"),
        (b'{"prompt":"x","n":true}', "n"),
        (b'{"prompt":"x","n":1.0}', "n"),
        (b'{"prompt":"x","n":"2"}', "n"),
        (b'{"prompt":"x","size":3}', "size"),
        (b'{"prompt":"x","size":"15x1024"}', "size"),
        (b'{"prompt":"x","size":"1024x4097"}', "size"),
        (b'{"prompt":"x","image_config":"4K"}', "image_config"),
        (b'{"prompt":"x","image_config":{"image_size":4}}', "image_config.image_size"),
        (b'{"prompt":"x","image_config":{"aspect_ratio":1}}', "image_config.aspect_ratio"),
        (b'{"prompt":"x","response_format":"png"}', "response_format"),
        (b'{"prompt":"[sample colour=red] x"}', None),
    ],
)
def test_a_bad_request_is_a_400_that_names_the_field(body: bytes, param: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        read_order(body, "", Behaviour())
    error = orjson.loads(refused.value.body())["error"]
    assert refused.value.status == 400
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


def test_the_number_of_images_is_the_one_asked_for_unless_the_behaviour_says_otherwise() -> None:
    assert order_for().images == 1
    assert order_for(n=None).images == 1
    assert order_for(n=3).images == 3
    assert order_for(Behaviour(default_n=4)).images == 4
    assert order_for(Behaviour(default_n=4), n=2).images == 2
    assert order_for(Behaviour(images=0), n=2).images == 0
    assert order_for(prompt="[sample images=7] x", n=2).images == 7


def test_the_form_of_images_is_the_one_asked_for_unless_nothing_was() -> None:
    assert not order_for().as_base64
    assert order_for(response_format="b64_json").as_base64
    assert order_for(Behaviour(answer="b64_json")).as_base64
    assert not order_for(Behaviour(answer="b64_json"), response_format="url").as_base64
    assert order_for(Behaviour(image_bytes=8)).as_base64
    assert not order_for(Behaviour(image_bytes=8), response_format="url").as_base64


@pytest.mark.parametrize("model", ["gpt-image-2.6-flare", "openai/gpt-image-1.5"])
def test_openais_current_models_have_no_addresses_and_know_three_qualities(model: str) -> None:
    assert order_for(model=model, response_format="url").as_base64
    assert order_for(model=model).quality == "high"
    assert order_for(model=model, quality="auto").quality == "high"
    assert order_for(model=model, quality="low").quality == "low"
    assert b'"quality":"low"' in base64_answer(order_for(model=model, quality="low"), b"", 1)[0]


def test_other_models_answer_with_addresses_and_in_standard_quality() -> None:
    assert not order_for(model="sample-image-1").as_base64
    assert order_for(model="sample-image-1").quality == "standard"
    assert order_for(model="sample-image-1", stream=True).quality == "high"


def test_the_prompt_overrides_the_header_which_overrides_the_process() -> None:
    body = orjson.dumps({"prompt": "[sample images=3] x"})
    order, behaviour = read_order(body, "images=2,delay_ms=20", Behaviour(delay_ms=10, chunk_bytes=5))
    assert behaviour == Behaviour(images=3, delay_ms=20, chunk_bytes=5)
    assert order == Order("x", 3, 1024, 1024, as_base64=False)


def test_usage_and_cost_follow_from_the_prompt_and_the_images() -> None:
    answer = orjson.loads(b"".join(url_answer(Order("a blue cube", 2, 64, 32, as_base64=False), "http://x", 7)))
    assert answer == {
        "created": 7,
        "background": "opaque",
        "output_format": "png",
        "quality": "standard",
        "size": "64x32",
        "data": [{"url": url, "revised_prompt": "a blue cube"} for url in ("http://x", "http://x?n=1")],
        "usage": {
            "total_tokens": 2115,
            "input_tokens": 3,
            "output_tokens": 2112,
            "input_tokens_details": {"text_tokens": 3, "image_tokens": 0},
        },
        "cost": 0.08,
    }


@pytest.mark.parametrize("images", [0, 1, 3])
def test_an_answer_has_so_many_images_in_either_form(images: int) -> None:
    order = Order('say "cheese" \\ ☃', images, 64, 64, as_base64=True)
    entries = [{"b64_json": f"QUJD{difference(index)}", "revised_prompt": order.prompt} for index in range(images)]
    assert orjson.loads(b"".join(base64_answer(order, b"QUJD", 1)))["data"] == entries
    assert len({entry["b64_json"] for entry in entries}) == images
    assert len(orjson.loads(b"".join(url_answer(order, "http://x", 1)))["data"]) == images


def test_large_images_are_not_copied() -> None:
    image = filler(1_000_000)
    segments = base64_answer(Order("x", 2, 64, 64, as_base64=True), image, 1)
    assert sum(segment is image for segment in segments) == 2


@pytest.mark.parametrize(("asked", "length"), [(0, 0), (1, 4), (4, 4), (65536, 65536), (4_000_001, 4_000_004)])
def test_filler_is_base64_of_the_length_asked_for(asked: int, length: int) -> None:
    text = filler(asked)
    assert len(text) == length
    assert len(base64.b64decode(text, validate=True)) == length // 4 * 3
    assert filler(asked) is text


def test_an_endless_answer_goes_on() -> None:
    image = filler(4)
    start = b"".join(islice(endless_answer(base64_answer(Order("x", 1, 64, 64, as_base64=True), image, 1), image), 40))
    assert start.startswith(b'{"created":1,')
    assert start.count(b'"') == start[:300].count(b'"')
    assert len(start) > 2_000_000


@pytest.mark.parametrize("status", [300, 400, 401, 403, 404, 418, 429, 500, 503])
def test_a_failure_has_the_four_members_of_openais_form(status: int) -> None:
    error = orjson.loads(failure_body(status))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert str(status) in error["message"]


@given(segments=st.lists(st.binary(max_size=40)), size=st.integers(min_value=1, max_value=50))
def test_cutting_keeps_every_byte_and_the_size(segments: list[bytes], size: int) -> None:
    pieces = [bytes(piece) for piece in cut(segments, size)]
    assert b"".join(pieces) == b"".join(segments)
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(1 <= len(piece) <= size for piece in pieces)
