from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from proxy.domain.billing.pricing import price
from proxy.domain.catalog import Catalog
from proxy.domain.errors import InvalidRequest, ProxyError, UnknownParameter
from proxy.domain.requests.image import KNOWN_PARAMETERS, ImageRequest, check_n, parse_image_request
from proxy.domain.requests.json_body import DEPTH_LIMIT, parse_json
from proxy.domain.requests.kinds import WORD_LENGTH_LIMIT
from proxy.domain.requests.unknown import accept_unknown
from proxy.upstream.dialects.openai import OpenAIDialect
from tests.domain.samples import contract_rows, make_model
from tests.support.examples import examples

CATALOG = Catalog([make_model(id="acme/image-1", max_n=10)])
NAMELESS = "no model"


def parse(**fields: Any) -> ImageRequest:
    return parse_image_request(json.dumps({"model": "acme/image-1", "prompt": "a cube", **fields}).encode())


def understand(body: bytes) -> ImageRequest:
    request = parse_image_request(body)
    model = CATALOG.get(request.model or "acme/image-1")
    check_n(request, model.max_n)
    assert accept_unknown(request, model) == request
    return request


def refusal(body: bytes) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        understand(body)
    return caught.value


def forwarded(request: ImageRequest) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(OpenAIDialect().write_generation(request, make_model()))
    return written


# --- The contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [row for row in contract_rows("bad-requests.json", "json") if row["name"] != NAMELESS],
    ids=lambda row: row["name"],
)
def test_the_contracts_bad_requests_are_refused_by_name(row: dict[str, Any]) -> None:
    error = refusal(json.dumps(row["body"]).encode())
    assert (error.wire_status, error.param) == (row["status"], row["param"])


def test_a_request_that_names_no_model_is_left_to_the_default_model() -> None:
    (row,) = (row for row in contract_rows("bad-requests.json", "json") if row["name"] == NAMELESS)
    assert parse_image_request(json.dumps(row["body"]).encode()).model is None


@pytest.mark.parametrize("row", contract_rows("bad-requests.json", "raw"), ids=lambda row: row["name"])
def test_the_contracts_bodies_that_are_no_json_are_refused(row: dict[str, Any]) -> None:
    error = refusal(row["body"].encode())
    assert (error.wire_status, error.wire_code, error.param) == (row["status"], "invalid_request", None)


@pytest.mark.parametrize("row", contract_rows("bad-requests.json", "ambiguous"), ids=lambda row: row["name"])
def test_of_a_name_given_twice_the_value_that_is_metered_is_the_one_that_is_forwarded(row: dict[str, Any]) -> None:
    request = parse_image_request(row["body"].encode())
    assert request.n == 10
    assert price(request, make_model()).images == 10
    assert forwarded(request)["n"] == 10


# --- Each field -------------------------------------------------------------------------------------------------------

LONG = "x" * WORD_LENGTH_LIMIT
NO_WORDS: list[Any] = [3, 1.5, True, False, ["x"], {}, LONG + "x"]
NO_INTEGERS: list[Any] = ["1", "", 1.0, 1.5, True, False, [1], {}, -1, 2**64, -(2**63), 1e300]
NO_SIZES = [
    "+3840x2160", "3_840x2_160", "3840x+2160", "3840*2160", "3840.0x2160", "3.84e3x2160", "3840x2160px", "3840x2160;",
    "3840\uff582160", "\uff14\uff2b", "4K\u200b", "\u00a04K", "4\u212a", "03840x2160", "3840x02160", "0x3840",
    "3840x2160x1",
    "-1x1", "3840 x 2160", "4 K", "04K", "4.0K", "3840:2160", "3840\u00d72160", "\u0663\u0668\u0664\u0660x1",
    "x3840", "3840x",
    "9999999x1", "a" * 17, "4K,1K", "0x1p5",
]  # fmt: skip
FIELDS: dict[str, tuple[list[Any], list[Any]]] = {
    "model": (["acme/image-1", "x", LONG], [*NO_WORDS, "", " ", "\t\n"]),
    "prompt": (["a cube", "é\U0001f600", LONG * 40, " a "], [3, 1.5, True, ["a cube"], {"text": "a cube"}, "", " \n "]),
    "n": ([1, 2, 10, 11, 1_000, 2**63], [*NO_INTEGERS, 0]),
    "size": (["1024x1024", "auto", "4K", "0.5K", "512", "hd"], [*NO_WORDS, *NO_SIZES]),
    "quality": (["high", ""], NO_WORDS),
    "style": (["vivid", ""], NO_WORDS),
    "user": (["user-1", LONG], NO_WORDS),
    "image_config": (
        [{}, {"aspect_ratio": "16:9"}, {"image_size": "4K"}, {"aspect_ratio": "1:1", "image_size": "2K"}],
        ["4K", 4, 1.5, True, False, [], [{"image_size": "4K"}], ""],
    ),
    "background": (["transparent"], NO_WORDS),
    "moderation": (["low"], NO_WORDS),
    "output_format": (["png"], NO_WORDS),
    "output_compression": ([0, 50, 100], [*NO_INTEGERS, 101]),
    "partial_images": ([0, 3], [*NO_INTEGERS, 4]),
    "response_format": (["b64_json"], NO_WORDS),
    "stream": ([False, True], ["true", "false", 1, 0, 1.0, [], {}]),
    "safety_identifier": (["user-1"], NO_WORDS),
    "complexity": (["high"], NO_WORDS),
    "frame_count": ([1, 24], [*NO_INTEGERS, 0]),
    "frame_duration_ms": ([1, 40], [*NO_INTEGERS, 0]),
    "svg": ([{}, {"model": "made-up", "reasoning": {"effort": "low"}}], ["x", 4, 1.5, True, False, [], [{}], ""]),
}


def test_the_table_of_fields_is_complete() -> None:
    assert FIELDS.keys() == KNOWN_PARAMETERS | {"model", "prompt"}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, (good, _) in FIELDS.items() for value in good],
    ids=lambda value: ascii(value)[:40],
)
def test_a_good_value_is_kept_and_forwarded_as_it_was_given(name: str, value: Any) -> None:
    request = parse(**{name: value})
    if name == "model":
        assert request.model == value
        assert name not in request.fields
    else:
        assert request.fields[name] == value
        assert forwarded(request)[name] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, (_, bad) in FIELDS.items() for value in bad],
    ids=lambda value: ascii(value)[:40],
)
def test_a_bad_value_is_refused_by_the_name_of_its_field(name: str, value: Any) -> None:
    error = refusal(json.dumps({"model": "acme/image-1", "prompt": "a cube", name: value}).encode())
    assert (error.wire_status, error.wire_code, error.param) == (400, "invalid_request", name)
    assert f"'{name}' should " in error.message
    assert len(error.message) < 300


@pytest.mark.parametrize("name", sorted(KNOWN_PARAMETERS | {"model"}))
def test_null_is_the_same_as_left_out(name: str) -> None:
    left_out = parse_image_request(
        orjson.dumps({field: value for field, value in {"model": "m", "prompt": "a cube"}.items() if field != name})
    )
    assert parse_image_request(orjson.dumps({"model": "m", "prompt": "a cube", name: None})) == left_out


def test_a_prompt_of_null_is_no_prompt() -> None:
    assert refusal(b'{"model":"acme/image-1","prompt":null}').message == refusal(b'{"model":"acme/image-1"}').message


@pytest.mark.parametrize("inner", ["aspect_ratio", "image_size"])
def test_null_within_image_config_is_the_same_as_left_out(inner: str) -> None:
    assert parse(image_config={inner: None}) == parse(image_config={})


@pytest.mark.parametrize("inner", ["aspect_ratio", "image_size"])
@pytest.mark.parametrize("value", NO_WORDS, ids=lambda value: ascii(value)[:20])
def test_image_config_names_the_setting_that_is_wrong(inner: str, value: Any) -> None:
    error = refusal(json.dumps({"prompt": "a cube", "image_config": {inner: value}}).encode())
    assert (error.wire_status, error.param) == (400, f"image_config.{inner}")


def test_a_setting_of_image_config_that_nobody_knows_is_named() -> None:
    assert parse(image_config={"seed": None}).fields["image_config"] == {}
    error = refusal(b'{"prompt":"a cube","image_config":{"seed":1}}')
    assert isinstance(error, UnknownParameter)
    assert error.param == "image_config.seed"
    assert "'image_config.seed'" in error.message


@pytest.mark.parametrize("name", ["seed_phrase", "", "N", "n ", "Prompt", "model\u0000", "__class__"])
@pytest.mark.parametrize("value", [0, False, "x"])
def test_a_field_that_nobody_knows_is_named_and_is_left_out_where_it_is_null(name: str, value: object) -> None:
    assert parse(**{name: None}) == parse()
    error = refusal(orjson.dumps({"model": "acme/image-1", "prompt": "a cube", name: value}))
    assert isinstance(error, UnknownParameter)
    assert (error.wire_status, error.wire_code, error.param) == (400, "unknown_parameter", name)
    assert f"'{name}'" in error.message


def test_a_long_name_is_not_given_back_whole() -> None:
    for body in ({"x" * 5_000: 1}, {"image_config": {"x" * 5_000: 1}}):
        error = refusal(orjson.dumps(body))
        assert len(error.message) < 300
        assert len(error.param or "") < 200


def test_a_prompt_may_be_long() -> None:
    assert parse(prompt="x" * 100_000).prompt == "x" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b" ", b"{", b"}", b"nonsense", b"null", b"true", b"1", b'"{}"', b"[]", b"[{}]", b"\xff\xfe{\x00}\x00",
        b'\xef\xbb\xbf{"prompt":"x"}', b'{"prompt":"x"}{}', b'{"prompt":"x",}', b"{'prompt':'x'}", b'{"prompt":"\xff"}',
        rb'{"prompt":"\ud800"}', b"[" * 5_000, b'{"n":' * 5_000,
    ],
    ids=lambda body: ascii(body)[:40],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_refused_without_a_name(body: bytes) -> None:
    error = refusal(body)
    assert (error.wire_status, error.wire_code, error.param) == (400, "invalid_request", None)
    assert len(error.message) < 300


# --- The number of images --------------------------------------------------------------------------------------------


@given(st.integers(1, 2**63), st.integers(1, 1_000))
def test_more_than_the_model_makes_in_one_request_is_refused(n: int, max_n: int) -> None:
    request = parse(n=n)
    if n <= max_n:
        check_n(request, max_n)
        return
    with pytest.raises(InvalidRequest) as caught:
        check_n(request, max_n)
    assert caught.value.param == "n"
    assert str(n) in caught.value.message
    assert str(max_n) in caught.value.message


def test_an_n_left_to_the_provider_is_never_too_many() -> None:
    check_n(parse(), 1)


# --- Whatever comes ---------------------------------------------------------------------------------------------------

names = st.sampled_from(sorted(FIELDS)) | st.text(max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
good_values = {name: st.none() | st.sampled_from(good) for name, (good, _) in FIELDS.items() if name != "prompt"}
good_bodies = st.fixed_dictionaries({"prompt": st.text(min_size=1, max_size=20)}, optional=good_values)
bodies = st.builds(lambda good, other: {**good, **other}, good_bodies, st.dictionaries(names, json_values, max_size=1))


def parse_or_refuse(body: bytes) -> ImageRequest | None:
    try:
        return parse_image_request(body)
    except ProxyError as error:
        refused = error
    assert refused.wire_status == 400
    assert len(refused.message) < 500
    return None


def has_the_types_it_promises(request: ImageRequest) -> bool:
    words = (request.model, request.size, request.image_size)
    return (
        type(request.prompt) is str
        and bool(request.prompt.strip())
        and (request.n is None or (type(request.n) is int and request.n > 0))
        and all(word is None or type(word) is str for word in words)
        and request.fields.keys() <= FIELDS.keys() - {"model"}
        and None not in request.fields.values()
    )


@given(json_values | bodies)
@examples(300, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_is_a_request_or_refused(value: Any) -> None:
    request = parse_or_refuse(json.dumps(value).encode())
    assert request is None or has_the_types_it_promises(request)


@given(st.binary(max_size=60), st.integers(0, 60))
@examples(200)
def test_any_bytes_are_a_request_or_refused(noise: bytes, at: int) -> None:
    good = b'{"prompt":"a cube","n":2,"size":"4K","image_config":{"image_size":"4K"}}'
    for body in (noise, good[:at] + noise + good[at:], good[:at] + noise):
        request = parse_or_refuse(body)
        assert request is None or has_the_types_it_promises(request)


@given(good_bodies, st.integers(1, 10))
@examples(200, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_metered_is_what_is_forwarded(body: dict[str, Any], default_n: int) -> None:
    request = parse_or_refuse(json.dumps(body).encode())
    if request is None:
        assert not body["prompt"].strip()
        return
    written = forwarded(request)
    assert written["prompt"] == request.prompt
    assert (written.get("n"), written.get("size")) == (request.n, request.size)
    assert written.get("image_config", {}).get("image_size") == request.image_size
    model = make_model(default_n=default_n)
    assert price(parse_image_request(json.dumps(written).encode()), model) == price(request, model)


spellings_of_n = st.sampled_from(['"n"', r'"\u006e"'])


@given(st.lists(st.tuples(spellings_of_n, st.integers(1, 10)), min_size=1, max_size=4))
def test_of_a_name_given_many_times_one_value_is_metered_and_forwarded(counts: list[tuple[str, int]]) -> None:
    members = ",".join(f"{name}:{n}" for name, n in counts)
    request = parse_image_request(f'{{"prompt":"a cube",{members}}}'.encode())
    assert forwarded(request)["n"] == request.n == price(request, make_model()).images == counts[-1][1]


def test_a_field_is_checked_in_the_spelling_that_counts() -> None:
    assert parse_image_request(rb'{"prompt":"a cube","n":"two","\u006e":2}').n == 2
    assert refusal(rb'{"prompt":"a cube","n":2,"\u006e":"two"}').param == "n"


# --- Depth ------------------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b'{"prompt":"a cube","metadata":%b1%b}' % (b'[{"a":' * (depth // 2), b"}]" * (depth // 2))


@pytest.mark.parametrize("depth", [DEPTH_LIMIT, 252, 1_000])
def test_what_is_nested_too_deep_is_refused_by_its_field(depth: int) -> None:
    with pytest.raises(InvalidRequest, match="nested more than 64 deep") as caught:
        parse_json(nested(depth))
    assert caught.value.param == "metadata"


def test_what_is_nested_as_deep_as_may_be_is_read_and_written() -> None:
    body = nested(DEPTH_LIMIT - 2)
    assert orjson.loads(orjson.dumps(parse_json(body))) == json.loads(body)
