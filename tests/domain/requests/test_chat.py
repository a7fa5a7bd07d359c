from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.billing.pricing import Quote, Terms, Tier, price
from proxy.domain.catalog import TOKENS_LIMIT
from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.requests.chat import IMAGE_TOKENS, ChatRequest, check_chat, parse_chat_request
from proxy.domain.requests.unknown import accept_unknown
from tests.domain.samples import make_model

MESSAGES = [{"role": "user", "content": "a cube"}]


def parse(**fields: Any) -> ChatRequest:
    request = parse_chat_request(orjson.dumps({"model": "acme/image-1", "messages": MESSAGES, **fields}))
    assert accept_unknown(request, make_model()) == request
    return request


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
        (b'{"totalTokenCount":7}', 9),
        (b'{"prompt_tokens":3,"completion_tokens":4}', 9), (b'{"input_tokens":3,"output_tokens":4}', 9),
        (b'{"promptTokenCount":2,"candidatesTokenCount":4,"thoughtsTokenCount":1}', 9),
        (b'{"total_tokens":null,"completion_tokens":7}', 9), (b'{"completion_tokens":-7}', 0),
        (b'{"total_tokens":true}', 0), (b'{"total_tokens":7.5}', 0), (b'{"total_tokens":%d}' % (TOKENS_LIMIT + 1), 0),
    ],
)  # fmt: skip
def test_text_costs_its_tokens_rounded_up(usage: bytes | None, units: int) -> None:
    assert Terms(text_multiplier=Decimal("1.2")).text_units(usage) == units


def test_the_dearest_text_stays_exact() -> None:
    terms = Terms(text_multiplier=Decimal(1_000_000))
    assert 0 < terms.text_units(b'{"totalTokenCount":%d}' % TOKENS_LIMIT) < 2**53


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    most=st.none() | st.integers(1, TOKENS_LIMIT),
    multiplier=st.decimals("0", "1000000", places=4),
    share=st.fractions(0, 1),
)
def test_a_reservation_covers_every_answer_within_its_bounds(
    text: str, most: int | None, multiplier: Decimal, share: Fraction
) -> None:
    request = parse(messages=[{"role": "user", "content": text}], max_completion_tokens=most)
    model = make_model(multiplier, max_text_tokens=900)
    tokens = int(share * (len(text.encode()) + (most or 900)))
    units = Terms(text_multiplier=multiplier).text_units(b'{"total_tokens":%d}' % tokens)
    assert max(units, model.unit_price) <= price(request, model).units < 2**53


def test_text_that_is_free_reserves_one_image() -> None:
    for rule in ("free", "refuse"):
        assert price(parse(max_tokens=90_000), make_model(text=rule)).units == 5_000


def test_the_larger_maximum_counts() -> None:
    assert parse(max_tokens=7, max_completion_tokens=9).max_tokens == 9
    assert parse(max_tokens=None).max_tokens is None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "9", [], TOKENS_LIMIT + 1])
def test_a_maximum_that_is_no_number_of_tokens_is_named(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}' should be an integer") as refused:
        parse(**{name: value})
    assert refused.value.param == name


def test_data_of_images_is_no_text_and_all_else_is() -> None:
    def tokens(part: object, **fields: object) -> int:
        return parse(messages=[{"role": "user", "content": [part]}], **fields).prompt_tokens

    address = "data:image/png;base64," + "A" * 100_000
    for image in (address, {"url": address}):
        assert IMAGE_TOKENS <= tokens({"type": "image_url", "image_url": image}) < IMAGE_TOKENS + 300
    assert tokens({"type": "text", "text": address}) > 100_000
    assert tokens({"type": "text", "image_url": {"url": address}}) > 100_000
    assert tokens("x", tools=[{"type": "image_url", "image_url": {"url": address}}]) > 100_000


@pytest.mark.parametrize("begin", ["iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD", "AAAAIGZ0eX"])
def test_an_image_in_a_text_costs_as_much_as_one_beside_it(begin: str) -> None:
    def tokens(text: str, **more: object) -> int:
        return parse(messages=[{"role": "assistant", "content": text}], **more).prompt_tokens

    image = f"![](data:image/png;base64,{begin}{'A' * 100_000}) "
    none = tokens("")
    for count in range(4):
        assert tokens(image * count) - none == count * (IMAGE_TOKENS + len("![]() "))
    assert tokens(f"data:image/png;base64,{begin}") - none == len(f"data:image/png;base64,{begin}")
    assert tokens("\u2603" + image + "B" * 7) - none == 3 + IMAGE_TOKENS + len("![]() ") + 7
    # What is no image costs what it may be as text.
    assert tokens(image.replace(begin, "QUJD")) > 100_000
    assert tokens(image.replace("image/png", "text/plain")) > 100_000
    assert tokens("", tools=[{"type": "function", "x": image}]) > 100_000
