from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson
import pytest

from proxy.domain.chat_request import ChatRequest, check_chat, parse_chat_request
from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.pricing import TOKENS_LIMIT, Quote, TextPrice, Tier, price
from tests.domain.samples import make_model

MESSAGES = [{"role": "user", "content": "a cube"}]


def parse(**fields: Any) -> ChatRequest:
    return parse_chat_request(orjson.dumps({"model": "acme/image-1", "messages": MESSAGES, **fields}))


def test_one_image_is_reserved_at_the_price_of_its_tier() -> None:
    model = make_model(default_n=4)
    assert price(parse(), model) == Quote(1, 5_000, 5_000, Tier.STANDARD)
    assert price(parse(image_config={"image_size": "4K"}), model) == Quote(1, 12_500, 12_500, Tier.FOUR_K)


def test_what_is_known_is_kept_and_null_is_left_out() -> None:
    request = parse(
        modalities=["image", "text"],
        stream=True,
        stream_options={"include_usage": True},
        temperature=0.5,
        tools=None,
        image_config={"aspect_ratio": "16:9", "image_size": None},
    )
    assert (request.wants_image, request.wants_usage, request.stream) == (True, True, True)
    assert request.fields == {
        "messages": MESSAGES,
        "modalities": ["image", "text"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "image_config": {"aspect_ratio": "16:9"},
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"), ({"messages": None}, "messages"), ({"messages": "x"}, "messages"),
        ({"messages": ["x"]}, "messages"), ({"stream": 1}, "stream"), ({"stream_options": []}, "stream_options"),
        ({"modalities": "image"}, "modalities"), ({"modalities": [1]}, "modalities"), ({"n": 2}, "n"),
        ({"n": True}, "n"), ({"model": 1}, "model"), ({"image_config": "4K"}, "image_config"),
        ({"image_config": {"size": "4K"}}, "image_config.size"), ({"price": 0}, "price"),
    ],
)  # fmt: skip
def test_mistakes_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**fields)
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"1"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_chat_request(body)


def test_an_unknown_field_has_a_code_of_its_own() -> None:
    with pytest.raises(UnknownParameter):
        parse(size="4K")


def test_models_that_do_not_chat_or_make_images_only_or_have_no_words_for_a_field_say_so() -> None:
    check_chat(parse(), make_model())
    check_chat(parse(modalities=["image"]), make_model(text="refuse"))
    with pytest.raises(InvalidRequest) as refused:
        check_chat(parse(modalities=["text"]), make_model(text="refuse"))
    assert refused.value.param == "modalities"
    with pytest.raises(InvalidRequest) as refused:
        check_chat(parse(), make_model(chats=False))
    assert refused.value.param == "model"

    def refuse_tools(fields: Mapping[str, Any]) -> None:
        if "tools" in fields:
            raise InvalidRequest("no", param="tools")

    check_chat(parse(), make_model(chat_checks=(refuse_tools,)))
    with pytest.raises(InvalidRequest) as refused:
        check_chat(parse(tools=[{}]), make_model(chat_checks=(refuse_tools,)))
    assert refused.value.param == "tools"


@pytest.mark.parametrize(
    ("usage", "units"),
    [
        (b'{"total_tokens":7}', 9), (b'{"total_tokens":0}', 0), (b'{"total_tokens":-1}', 0), (b"{}", 0), (None, 0),
        (b'{"totalTokenCount":7}', 0),
        (b'{"total_tokens":true}', 0), (b'{"total_tokens":7.5}', 0), (b'{"total_tokens":%d}' % (TOKENS_LIMIT + 1), 0),
    ],
)  # fmt: skip
def test_text_costs_its_tokens_rounded_up(usage: bytes | None, units: int) -> None:
    assert TextPrice(Decimal("1.2"), "total_tokens").units(usage) == units


def test_the_dearest_text_stays_exact() -> None:
    price = TextPrice(Decimal(1_000_000), "totalTokenCount")
    assert 0 < price.units(b'{"totalTokenCount":%d}' % TOKENS_LIMIT) < 2**53
