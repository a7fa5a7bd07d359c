"""Prices of a model's own, from the request to the charge."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.billing.charges import Made
from proxy.domain.billing.pricing import agree, price
from proxy.domain.billing.settlement import Delivery, Settlement, settle, settle_images
from proxy.domain.catalog import TOKENS_LIMIT, Model
from proxy.domain.errors import InvalidRequest
from proxy.domain.prices.table import DEFAULT
from proxy.domain.requests.chat import ChatRequest, parse_chat_request
from proxy.domain.requests.edit import parse_edit_request
from proxy.domain.requests.image import ImageRequest, parse_image_request
from tests.domain.prices.test_table import asked_qualities, asked_sizes
from tests.domain.samples import make_model, make_reservation
from tests.support.price_tables import VECTORS, openai_usage, prices_of, request_of

counts = st.integers(1, 20)
rules = st.lists(
    st.fixed_dictionaries(
        {"base": st.integers(0, 50_000)},
        optional={
            "quality": asked_qualities,
            "size": asked_sizes,
            "task": st.sampled_from(["generation", "edit", "chat"]),
            "min_pixels": st.sampled_from([1_000_000, 3_000_000]),
        },
    ),
    max_size=6,
)
models = st.fixed_dictionaries(
    {},
    optional={
        "prices": rules,
        "inputs": st.just({"image": 800}),
        "token_multiplier": st.sampled_from(["1", "1.5", "0.3333"]),
        "settle": st.just({"by": "usage", "per_million": {"input_text": 500_000, "output_image": 3_000_000}}),
    },
)
words = st.none() | st.just("auto") | asked_qualities
sizes = st.none() | st.just("auto") | asked_sizes


def model_of(facts: dict[str, Any]) -> Model:
    return make_model(facts.get("token_multiplier", "1"), prices=prices_of(facts), max_n=1_000)


def asked(vector: dict[str, Any]) -> ImageRequest:
    parse = parse_edit_request if vector.get("task") == "edit" else parse_image_request
    return parse(json.dumps(request_of(vector)).encode())


def charged(
    request: ImageRequest | ChatRequest, model: Model, *, by_delivered_size: bool = False, **facts: Any
) -> Settlement:
    quote = price(request, model)
    terms = agree(request, model, quote, by_delivered_size=by_delivered_size, kept_answer_bytes=0)
    delivery = Delivery(terms, **facts)
    delivery.end(complete=True)
    return settle(make_reservation(quote), delivery)


def requested(quality: str | None, size: str | None, n: int = 1) -> ImageRequest:
    fields = {"quality": quality, "size": size, "n": n, "prompt": "a cube"}
    return parse_image_request(json.dumps(fields).encode())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_contract_holds(vector: dict[str, Any]) -> None:
    answer, request, model = vector["answer"], asked(vector), model_of(vector["model"])
    usage = openai_usage(answer["usage"]) if "usage" in answer else {}
    usage |= {"cost": answer["cost_usd"]} if "cost_usd" in answer else {}
    told = ((answer.get("quality", ""), answer.get("size", "")),) * answer["images"]
    settlement = charged(
        request, model, images=answer["images"], told=told, provider_usage=orjson.dumps(usage) if usage else None
    )
    assert price(request, model).units == vector["reserved_units"]
    assert settlement.charged_units == vector["charged_units"]
    assert settlement.overage_units == vector["overage_units"]


# --- Laws -------------------------------------------------------------------------------------------------------------


@given(models, words, sizes, counts, st.integers(0, 40), words, sizes)
def test_what_is_charged_without_overage_is_at_most_what_was_reserved(
    facts: dict[str, Any], quality: str | None, size: str | None, n: int, images: int, told: str | None, of: str | None
) -> None:
    request, model = requested(quality, size, n), model_of(facts)
    reserved = price(request, model).units
    settlement = charged(request, model, images=images, told=((told or "", of or ""),) * images)
    assert settlement.charged_units - settlement.overage_units <= reserved
    if images <= n:
        assert settlement.overage_units == 0
    assert reserved == settlement.charged_units - settlement.overage_units + settlement.released_units


@given(models, words, sizes, counts, asked_qualities, asked_sizes)
def test_a_request_that_names_what_the_answer_says_is_charged_alike(
    facts: dict[str, Any], quality: str | None, size: str | None, n: int, told: str, of: str
) -> None:
    model = model_of(facts)
    left_open = requested(quality, size, n)
    named = requested(told if quality in (None, "auto") else quality, of if size in (None, "auto") else size, n)
    one, other = (charged(request, model, images=n, told=((told, of),) * n) for request in (left_open, named))
    # An image that no rule is for may be 4K; where a size is left open, that is not reserved.
    if price(named, model).rule != DEFAULT:
        assert one.charged_units == other.charged_units
    assert one.charged_units <= other.charged_units


@given(models, words, sizes, counts)
def test_an_answer_that_says_nothing_is_charged_as_reserved(
    facts: dict[str, Any], quality: str | None, size: str | None, n: int
) -> None:
    request, model = requested(quality, size, n), model_of(facts)
    assert charged(request, model, images=n).charged_units == price(request, model).units


@given(
    st.lists(st.integers(0, 10**6), min_size=4, max_size=4),
    st.lists(st.integers(0, 10**7), min_size=4, max_size=4),
    st.decimals(0, 100, places=6),
)
def test_tokens_are_charged_exactly_and_rounded_up_once(
    tokens: list[int], prices: list[int], multiplier: Decimal
) -> None:
    kinds = ("input_text", "input_image", "output_text", "output_image")
    settle_by = {"by": "usage", "per_million": dict(zip(kinds, prices, strict=True))}
    model = make_model(multiplier, prices=prices_of({"settle": settle_by, "token_multiplier": str(multiplier)}))
    usage = orjson.dumps(openai_usage(dict(zip(kinds, tokens, strict=True))))
    units = charged(requested(None, None), model, images=1, provider_usage=usage).charged_units
    if not any(tokens):
        assert units == model.unit_price
        return
    exact = sum(count * each for count, each in zip(tokens, prices, strict=True)) * multiplier / 10**6
    assert exact <= units < exact + 1


# --- Cases ------------------------------------------------------------------------------------------------------------

HIGH = {"prices": [{"quality": "low", "base": 2_000}, {"quality": "high", "base": 20_000}]}
BY_USAGE = {"by": "usage", "per_million": {"input_text": 500_000, "output_image": 3_000_000}}
USAGE = orjson.dumps(openai_usage({"input_text": 50, "output_image": 4_160}))


def test_images_that_are_said_to_differ_cost_what_each_does() -> None:
    told = (("low", "1024x1024"), ("high", "1024x1024"), ("", ""))
    settlement = charged(requested(None, "1024x1024", 3), model_of(HIGH), images=3, told=told)
    assert settlement.charged_units == 2_000 + 20_000 + 20_000
    assert settlement.basis == {
        "by": "images",
        "prices": [
            {"rule": "quality=low", "images": 1, "unit_price": 2_000},
            {"rule": "quality=high", "images": 2, "unit_price": 20_000},
        ],
    }


def test_the_basis_says_the_tokens_or_the_cost() -> None:
    by_usage = charged(requested("low", "1024x1024"), model_of({"settle": BY_USAGE}), images=1, provider_usage=USAGE)
    assert by_usage.basis == {"by": "usage", "tokens": {"input_text": 50, "output_image": 4_160}}
    by_cost = charged(
        requested("low", None), model_of({"settle": {"by": "cost"}}), images=1, provider_usage=b'{"cost":4e-05}'
    )
    assert (by_cost.charged_units, by_cost.basis) == (4, {"by": "cost", "cost_usd": "0.00004"})


@pytest.mark.parametrize("silent", [None, b"{}", b'{"total_tokens":0}', b'{"cost":0.5}', b'{"output_tokens":1e300}'])
@pytest.mark.parametrize("is_first", [True, False])
def test_images_of_a_part_that_reported_nothing_are_charged_by_the_table_as_what_they_are(
    silent: bytes | None, *, is_first: bool
) -> None:
    model = model_of({**HIGH, "settle": BY_USAGE})
    parts = [((1, silent), ("low", "1024x1024")), ((2, USAGE), ("high", "1024x1024"))]
    reports, told = zip(*(parts if is_first else reversed(parts)), strict=True)
    each = tuple(words for (images, _), words in zip(reports, told, strict=True) for _ in range(images))
    settlement = charged(requested(None, None, 3), model, images=3, provider_usage=USAGE, reports=reports, told=each)
    assert settlement.charged_units == 12_505 + 2_000
    assert settlement.basis is not None
    assert settlement.basis["unreported"] == [{"rule": "quality=low", "images": 1, "unit_price": 2_000}]


def test_a_part_without_a_cost_is_charged_by_the_table_and_costs_add_up_before_they_are_rounded() -> None:
    model = model_of({**HIGH, "settle": {"by": "cost"}})
    reports = ((1, b'{"cost":0.000004}'), (1, b'{"total_tokens":5}'), (1, b'{"cost":"0.000004"}'))
    settlement = charged(requested("low", "1K", 3), model, images=3, reports=reports)
    assert settlement.charged_units == 1 + 2_000
    assert settlement.basis is not None
    assert settlement.basis["cost_usd"] == "0.000008"


def test_parts_that_add_up_to_what_cannot_be_true_are_charged_by_the_table() -> None:
    by_cost = model_of({**HIGH, "settle": {"by": "cost"}})
    reports = ((1, b'{"cost":9000}'),) * 2
    assert charged(requested("low", "1K", 2), by_cost, images=2, reports=reports).charged_units == 4_000
    by_usage = model_of({**HIGH, "settle": BY_USAGE})
    reports = ((1, b'{"output_tokens":%d}' % TOKENS_LIMIT),) * 2
    assert charged(requested("low", "1K", 2), by_usage, images=2, reports=reports).charged_units == 4_000


@pytest.mark.parametrize("usage", [b'{"cost":-1}', b'{"cost":10001}', b'{"cost":"much"}', b'{"cost":true}', b"{}"])
def test_a_cost_that_cannot_be_true_is_none(usage: bytes) -> None:
    model = model_of({**HIGH, "settle": {"by": "cost"}})
    assert charged(requested("low", "1K"), model, images=1, provider_usage=usage).charged_units == 2_000


def test_without_units_per_usd_no_cost_is_charged() -> None:
    model = make_model(prices=prices_of({"settle": {"by": "cost"}}, units_per_usd=None))
    assert charged(requested("low", "1K"), model, images=1, provider_usage=b'{"cost":1}').charged_units == 5_000


def test_a_size_that_was_delivered_is_what_counts_by_that_setting() -> None:
    facts = {"prices": [{"size": "1536x1024", "base": 30_000}, {"size": "1024x1024", "base": 10_000}]}
    model, small, large = model_of(facts), (1_024, 1_024), (1_536, 1_024)

    def units(size: str | None, *came: tuple[int, int] | None) -> int:
        return charged(
            requested("low", size, len(came)), model, images=len(came), sizes=came, by_delivered_size=True
        ).charged_units

    assert units("1536x1024", small) == 10_000
    assert units("1024x1024", large) == 30_000
    assert units("1024x1024", large, None) == 40_000
    assert units(None, small, None) == 40_000
    assert units(None, (3_840, 2_160)) == 12_500
    assert units("1024x1024", (64, 64)) == 5_000


def test_where_nothing_more_is_known_of_a_request_its_images_cost_what_was_reserved() -> None:
    vector = next(each for each in VECTORS if each.get("reference_images") and each["answer"]["images"])
    quote = price(asked(vector), model_of(vector["model"]))
    assert settle_images(make_reservation(quote), Delivery(images=1)).charged_units == vector["charged_units"]
    assert settle_images(make_reservation(quote), Delivery(images=0)).charged_units == 0


def chat(images: int, **fields: Any) -> ChatRequest:
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}] * images
    messages = [{"role": "user", "content": [{"type": "text", "text": "draw"}, *parts]}]
    return parse_chat_request(json.dumps({"messages": messages, "max_tokens": 1, **fields}).encode())


def test_a_chat_costs_its_task_its_size_and_its_references() -> None:
    facts = {
        "prices": [{"task": "chat", "base": 300_000}, {"task": "chat", "size": "2K", "base": 400_000}],
        "inputs": {"image": 800},
    }
    assert price(chat(0, image_config={"image_size": "1K"}), model_of(facts)).units == 300_000
    assert price(chat(3, image_config={"image_size": "2k"}), model_of(facts)).units == 402_400
    assert charged(chat(3, image_config={"image_size": "2k"}), model_of(facts), images=1).charged_units == 402_400
    assert charged(chat(3), model_of(facts), images=0).charged_units == 0


def test_a_pixel_rule_holds_for_an_image_config_that_is_sent_as_pixels() -> None:
    facts = {"prices": [{"size": "2048x2048", "base": 9_000}]}
    request = parse_image_request(b'{"prompt":"a cube","quality":"low","image_config":{"image_size":"2K"}}')
    as_pixels = make_model(prices=prices_of(facts), parameters=frozenset({"size"}))
    as_it_is = make_model(prices=prices_of(facts), parameters=frozenset({"image_config"}))
    assert (price(request, as_pixels).units, price(request, as_it_is).units) == (9_000, 5_000)


def test_reference_images_past_what_can_be_counted_are_refused() -> None:
    model = model_of({"inputs": {"image": 10**11}})
    with pytest.raises(InvalidRequest, match="reference images cost more"):
        price(chat(50_000), model)


def test_no_more_is_read_of_an_answer_than_its_images() -> None:
    model = model_of(HIGH)
    quote = price(requested(None, "1K", 2), model)
    terms = agree(requested(None, "1K", 2), model, quote, by_delivered_size=False, kept_answer_bytes=0)
    assert terms.prices is not None
    assert terms.prices.charge(Made(1, (("low", ""), ("high", "")))).units == 2_000
